//! What stands behind the `?` of a request. Empty values count as absent, unknown names are ignored.

use std::ops::RangeInclusive;

use akis_model::{Channel, ErrorCode};
use axum::extract::Query as Pairs;
use axum::http::{StatusCode, Uri};

use crate::problem::Problem;

/// Channels in one request.
pub(crate) const MAX_CHANNELS: usize = 200;

/// The parameters of one request.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Takes them apart.
    ///
    /// # Errors
    ///
    /// A [`Problem`] when they are not well-formed.
    pub(crate) fn of(uri: &Uri) -> Result<Self, Problem> {
        let pairs = Pairs::<Vec<(String, String)>>::try_from_uri(uri);
        pairs.map(|Pairs(pairs)| Self(pairs)).map_err(|_| Problem::bad_request("the query is not well-formed"))
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(key, value)| key == name && !value.is_empty());
        named.map(|(_, value)| value.as_str())
    }

    /// The one value of `name`.
    ///
    /// # Errors
    ///
    /// A [`Problem`] when there are several.
    pub(crate) fn one<'a>(&'a self, name: &'a str) -> Result<Option<&'a str>, Problem> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(Problem::bad_request(format!("{name} is given twice"))),
        }
    }

    /// The value of `name` as a number of decimal digits.
    ///
    /// # Errors
    ///
    /// A [`Problem`] when it is none, or outside of `range`.
    pub(crate) fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Problem> {
        let Some(value) = self.one(name)? else { return Ok(None) };
        let number = value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok()).flatten();
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let (least, most) = range.into_inner();
                Err(Problem::bad_request(format!("{name} is an integer from {least} to {most}")))
            }
        }
    }

    /// The names in `channels`, each once, in the order named first.
    ///
    /// # Errors
    ///
    /// A [`Problem`] when there is none, or there are too many.
    pub(crate) fn names(&self) -> Result<Vec<&str>, Problem> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.all("channels").flat_map(|list| list.split(',')).filter(|name| !name.is_empty()) {
            if !names.contains(&name) {
                names.push(name);
            }
            if names.len() > MAX_CHANNELS {
                return Err(Problem::bad_request("more than 200 channels"));
            }
        }
        if names.is_empty() { Err(Problem::bad_request("channels is missing or empty")) } else { Ok(names) }
    }

    /// The channels in `channels`.
    ///
    /// # Errors
    ///
    /// As [`Query::names`], and when one of them is no channel.
    pub(crate) fn channels(&self) -> Result<Vec<Channel>, Problem> {
        self.names()?.into_iter().map(channel).collect()
    }
}

/// Reads one channel's name.
///
/// # Errors
///
/// A [`Problem`] when it is none.
pub(crate) fn channel(name: &str) -> Result<Channel, Problem> {
    let refuse = |error| Problem::new(StatusCode::BAD_REQUEST, ErrorCode::BadChannel, format!("{name:?}: {error}"));
    Channel::parse(name).map_err(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::of(&format!("/x?{text}").parse().unwrap()).unwrap()
    }

    #[test]
    fn values_are_what_they_should_be_or_refused() {
        let good = query("a=5&b=&c=%41&d=1&d=2&x");
        assert_eq!(good.number("a", 1..=9).unwrap(), Some(5));
        assert_eq!(good.number("b", 1..=9).unwrap(), None);
        assert_eq!(good.one("c").unwrap(), Some("A"));
        assert!(good.one("d").is_err());
        for bad in ["a=0", "a=10", "a=-1", "a=+1", "a=1.0", "a=x", "a=99999999999999999999"] {
            assert!(query(bad).number("a", 1..=9).is_err(), "{bad}");
        }
    }

    #[test]
    fn channels_are_named_once() {
        let names = query("channels=a:b,a:c,,a:b&channels=a:d");
        assert_eq!(names.names().unwrap(), vec!["a:b", "a:c", "a:d"]);
        assert_eq!(names.channels().unwrap().len(), 3);
        assert!(query("channels=,").names().is_err());
        assert!(query("channels=a").channels().is_err());
        let many: Vec<_> = (0..201).map(|n| format!("a:{n}")).collect();
        assert!(query(&format!("channels={}", many.join(","))).names().is_err());
    }
}
