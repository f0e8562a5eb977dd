//! Values that must not be shown.

use std::fmt;

use url::Url;

/// What stands in place of a secret.
pub(super) const HIDDEN: &str = "***";

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text as a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// The address of a server. Prints without the passwords that it may contain.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// Takes an address.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The address with its passwords, for whoever connects.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hide_passwords(&self.0))
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The same address with the password of the user, and query values whose names speak of secrets, hidden.
pub(super) fn hide_passwords(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return HIDDEN.to_owned() };
    // Without user and password there is nothing to hide, and the text stays as it was written.
    if url.password().is_none() && url.query().is_none() {
        return text.to_owned();
    }
    if url.password().is_some() && url.set_password(Some(HIDDEN)).is_err() {
        return HIDDEN.to_owned();
    }
    let pairs: Vec<(String, String)> = url
        .query_pairs()
        .map(|(name, value)| {
            let lower = name.to_ascii_lowercase();
            let secret = ["password", "token", "secret", "key"].iter().any(|word| lower.contains(word));
            (name.into_owned(), if secret { HIDDEN.to_owned() } else { value.into_owned() })
        })
        .collect();
    if !pairs.is_empty() {
        url.query_pairs_mut().clear().extend_pairs(pairs);
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden_wherever_they_stand() {
        for (given, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("rediss://me:pa55@h:1/2", "rediss://me:***@h:1/2"),
            ("redis://:pa55@h", "redis://:***@h"),
            (
                "redis-sentinel://h:1?node=a:2&sentinelPassword=pa55",
                "redis-sentinel://h:1?node=a%3A2&sentinelPassword=***",
            ),
            ("no url with pa55", HIDDEN),
        ] {
            assert_eq!(ServerUrl::new(given).to_string(), shown);
        }
        assert_eq!(format!("{:?}", Secret::new("pa55")), HIDDEN);
    }
}
