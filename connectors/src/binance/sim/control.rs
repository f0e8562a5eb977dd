//! The control messages of a client, and the venue's own words where they are wrong.
//!
//! <https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams#live-subscribingunsubscribing-to-streams>

use serde_json::{Map, Value, json};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// Names to add, known or not.
    Subscribe(Vec<String>),
    /// Names to remove, known or not.
    Unsubscribe(Vec<String>),
    /// All names.
    List,
    /// Whether frames are wrapped with the stream's name.
    SetCombined(bool),
    /// See [`Request::SetCombined`].
    GetCombined,
}

/// A message that was understood.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    /// Echoed in the reply.
    pub(super) id: Value,
    pub(super) request: Request,
}

/// A message that was not understood.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    code: u8,
    message: String,
    /// Echoed where it could be read.
    id: Option<Value>,
}

impl Refusal {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), id: None }
    }

    /// More streams than a connection may have.
    pub(super) fn too_many_streams(id: Value) -> Self {
        Self { id: Some(id), ..Self::new(4, "Too many subscriptions") }
    }

    /// The reply.
    pub(super) fn reply(&self) -> String {
        let mut reply = json!({ "code": self.code, "msg": self.message });
        if let (Some(id), Some(fields)) = (&self.id, reply.as_object_mut()) {
            fields.insert("id".into(), id.clone());
        }
        reply.to_string()
    }
}

/// The reply to a request that was carried out.
pub(super) fn reply(id: &Value, result: &Value) -> String {
    format!(r#"{{"result":{result},"id":{id}}}"#)
}

/// Understands a text frame.
pub(super) fn parse(text: &str) -> Result<Message, Refusal> {
    let value: Value = serde_json::from_str(text).map_err(|error| {
        Refusal::new(3, format!("Invalid JSON: expected value at line {} column {}", error.line(), error.column()))
    })?;
    let Value::Object(fields) = value else {
        return Err(Refusal::new(2, "Invalid request: expected a map at line 1 column 0"));
    };
    let Some(id) = fields.get("id").filter(|id| is_request_id(id)).cloned() else {
        return Err(Refusal::new(2, "Invalid request: request ID must be an unsigned integer"));
    };
    match request(text, &fields) {
        Ok(request) => Ok(Message { id, request }),
        Err(refusal) => Err(Refusal { id: Some(id), ..refusal }),
    }
}

fn request(text: &str, fields: &Map<String, Value>) -> Result<Request, Refusal> {
    let Some(method) = fields.get("method").and_then(Value::as_str) else {
        let column = text.len();
        return Err(Refusal::new(2, format!("Invalid request: missing field `method` at line 1 column {column}")));
    };
    let params = fields.get("params");
    match method {
        "SUBSCRIBE" => Ok(Request::Subscribe(names(params)?)),
        "UNSUBSCRIBE" => Ok(Request::Unsubscribe(names(params)?)),
        "LIST_SUBSCRIPTIONS" => list(params, 0).map(|_| Request::List),
        "SET_PROPERTY" => {
            let params = property(params, 2)?;
            match params.get(1) {
                Some(&Value::Bool(combined)) => Ok(Request::SetCombined(combined)),
                _ => Err(Refusal::new(1, "Invalid value type: expected Boolean")),
            }
        }
        "GET_PROPERTY" => property(params, 1).map(|_| Request::GetCombined),
        unknown => {
            let column = text.find(unknown).map_or(0, |at| at + unknown.len() + 1);
            Err(Refusal::new(
                2,
                format!(
                    "Invalid request: unknown variant {unknown}, expected one of `SUBSCRIBE`, `UNSUBSCRIBE`, \
                     `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY` at line 1 column {column}"
                ),
            ))
        }
    }
}

/// A signed integer, an alphanumeric text of at most 36 characters, or null.
fn is_request_id(id: &Value) -> bool {
    match id {
        Value::Null => true,
        Value::Number(number) => number.is_i64(),
        Value::String(text) => (1..=36).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric()),
        _ => false,
    }
}

fn names(params: Option<&Value>) -> Result<Vec<String>, Refusal> {
    let name = |value: &Value| value.as_str().map(str::to_owned);
    list(params, usize::MAX)?
        .iter()
        .map(name)
        .collect::<Option<_>>()
        .ok_or_else(|| Refusal::new(2, "Invalid request: invalid type: expected a string"))
}

fn property(params: Option<&Value>, most: usize) -> Result<&[Value], Refusal> {
    let params = list(params, most)?;
    match params.first() {
        Some(Value::String(name)) if name == "combined" => Ok(params),
        Some(Value::String(_)) => Err(Refusal::new(0, "Unknown property")),
        _ => Err(Refusal::new(2, "Invalid request: property name must be a string")),
    }
}

fn list(params: Option<&Value>, most: usize) -> Result<&[Value], Refusal> {
    match params {
        None => Ok(&[]),
        Some(Value::Array(params)) if params.len() <= most => Ok(params),
        Some(Value::Array(_)) => Err(Refusal::new(2, "Invalid request: too many parameters")),
        Some(_) => Err(Refusal::new(2, "Invalid request: invalid type: expected a sequence")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_messages_get_the_words_of_the_venue() {
        for (text, reply) in [
            (
                r#"{"method":"GET_PROPERTY","params":["colour"],"id":2}"#,
                r#"{"code":0,"id":2,"msg":"Unknown property"}"#,
            ),
            (
                r#"{"method":"SET_PROPERTY","params":["combined","yes"],"id":2}"#,
                r#"{"code":1,"id":2,"msg":"Invalid value type: expected Boolean"}"#,
            ),
            (
                r#"{"method":"SET_PROPERTY","params":[],"id":2}"#,
                r#"{"code":2,"id":2,"msg":"Invalid request: property name must be a string"}"#,
            ),
            (
                r#"{"method":"SUBSCRIBE","params":[]}"#,
                r#"{"code":2,"msg":"Invalid request: request ID must be an unsigned integer"}"#,
            ),
            (
                r#"{"method":"SUBSCRIBE","params":[],"id":1.5}"#,
                r#"{"code":2,"msg":"Invalid request: request ID must be an unsigned integer"}"#,
            ),
            (
                r#"{"method":"GET_PROPERTY","params":["combined",1],"id":"a7"}"#,
                r#"{"code":2,"id":"a7","msg":"Invalid request: too many parameters"}"#,
            ),
            (
                r#"{"method":"NONSENSE","id":1}"#,
                "{\"code\":2,\"id\":1,\"msg\":\"Invalid request: unknown variant NONSENSE, expected one of `SUBSCRIBE`, \
                 `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY` at line 1 column 20\"}",
            ),
            (r#"{"id":1}"#, r#"{"code":2,"id":1,"msg":"Invalid request: missing field `method` at line 1 column 8"}"#),
            ("nonsense", r#"{"code":3,"msg":"Invalid JSON: expected value at line 1 column 2"}"#),
        ] {
            assert_eq!(parse(text).unwrap_err().reply(), reply, "{text}");
        }
        for text in ["", "[]", "7", r#"{"method":"SUBSCRIBE","params":[7],"id":1}"#, &"[".repeat(500)] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ids_are_echoed_in_every_form() {
        for id in ["1", "-9223372036854775808", "null", r#""abc""#] {
            let message = parse(&format!(r#"{{"method":"LIST_SUBSCRIPTIONS","id":{id}}}"#)).unwrap();
            assert_eq!(reply(&message.id, &Value::Null), format!(r#"{{"result":null,"id":{id}}}"#));
        }
    }
}
