//! Rights, as roles and claims write them: `subscribe:zone:pjm.*`, `order`, `admin`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Something that a client can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Read a channel: follow it, and read its latest entries and its history.
    Subscribe,
    /// Publish to a channel, and remove its keys.
    Publish,
    /// Remove a zone with all its keys; write the records of a registry.
    Registry,
    /// Place orders; and see, follow and cancel one's own.
    Order,
    /// Claim and execute anybody's orders.
    Work,
    /// See what concerns others, revoke, and everything else.
    Admin,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 6] =
        [Self::Subscribe, Self::Publish, Self::Registry, Self::Order, Self::Work, Self::Admin];

    /// The name in rights.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Registry => "registry",
            Self::Order => "order",
            Self::Work => "work",
            Self::Admin => "admin",
        }
    }

    /// Whether it is performed on channels, so that rights for it name a channel.
    pub const fn is_of_channels(self) -> bool {
        matches!(self, Self::Subscribe | Self::Publish | Self::Registry)
    }
}

/// The longest right, in bytes.
pub const RIGHT_LEN_MAX: usize = 160;

/// The most rights of one principal; rights beyond that are ignored.
pub const RIGHTS_MAX: usize = 64;

/// A right: an action and, for actions on channels, the channels.
///
/// A pattern is the name of a channel in which `*` stands for any characters, or none, and `{tenant}` and
/// `{subject}` for those of the principal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Right {
    action: Action,
    /// Empty if the action is not performed on channels.
    pattern: Box<str>,
}

/// A text that is not a right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a right: expected {expected}")]
pub struct InvalidRight {
    found: String,
    expected: &'static str,
}

const EXPECTED: &str =
    "one of subscribe:<channel>, publish:<channel>, registry:<channel>, order, work, admin";
const EXPECTED_CHANNEL: &str = "a channel such as zone:pjm.* after the action: zone:, order:, event: or registry:, and then A-Z a-z 0-9 . _ : - / * {tenant} {subject}";

impl FromStr for Right {
    type Err = InvalidRight;

    fn from_str(text: &str) -> Result<Self, InvalidRight> {
        let fault = |expected| {
            let found = text.chars().take(RIGHT_LEN_MAX).collect();
            InvalidRight { found, expected }
        };
        let (word, pattern) = text.split_once(':').map_or((text, None), |(word, rest)| (word, Some(rest)));
        let action = Action::ALL.into_iter().find(|action| action.as_str() == word);
        let action = action.filter(|_| text.len() <= RIGHT_LEN_MAX).ok_or_else(|| fault(EXPECTED))?;
        match pattern {
            None if !action.is_of_channels() => Ok(Self { action, pattern: Box::from("") }),
            Some(pattern) if action.is_of_channels() && is_pattern(pattern) => {
                // The channels of orders are in lower case.
                let is_order = pattern.starts_with(ORDER);
                let pattern = if is_order { pattern.to_ascii_lowercase() } else { pattern.to_owned() };
                Ok(Self { action, pattern: pattern.into() })
            }
            _ if action.is_of_channels() => Err(fault(EXPECTED_CHANNEL)),
            _ => Err(fault(EXPECTED)),
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action.as_str())?;
        if self.action.is_of_channels() { write!(f, ":{}", self.pattern) } else { Ok(()) }
    }
}

const ZONE: &str = "zone:";
/// The prefix of the channels of orders.
pub(crate) const ORDER: &str = "order:";
const EVENT: &str = "event:";
/// The prefix of the channels of registries.
const REGISTRY: &str = "registry:";
const TENANT: &str = "{tenant}";
const SUBJECT: &str = "{subject}";

fn is_pattern(pattern: &str) -> bool {
    let filled = pattern.replace(TENANT, "x").replace(SUBJECT, "x");
    let name = [ZONE, ORDER, EVENT, REGISTRY].into_iter().find_map(|kind| filled.strip_prefix(kind));
    let may_have_slashes = filled.starts_with(EVENT);
    let is_known = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(c, '.' | '_' | ':' | '-' | '*')
            || (c == '/' && may_have_slashes)
    };
    name.is_some_and(|name| !name.is_empty() && name.chars().all(is_known))
}

/// Whether a text may replace `{tenant}` or `{subject}` in a pattern. Characters that separate the parts of
/// names may not: otherwise the tenant `a` would get the rights of the tenant `a.b`.
fn is_fit_for_patterns(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

impl Right {
    /// The action that it permits.
    pub fn action(&self) -> Action {
        self.action
    }

    /// The right of one principal, with placeholders replaced. `None` if a placeholder has no valid value,
    /// or if the right would reach beyond the principal's tenant.
    pub(crate) fn of(&self, subject: &str, tenant: Option<&str>) -> Option<Self> {
        let reaches_all = matches!(self.action, Action::Work | Action::Admin)
            || [ORDER, REGISTRY].iter().any(|of_all| self.pattern.starts_with(of_all));
        // There is one queue for all orders and one registry for all records, without tenants, so these
        // rights cannot be limited to one.
        if tenant.is_some() && reaches_all {
            return None;
        }
        let mut pattern = self.pattern.to_string();
        for (placeholder, value) in [(TENANT, tenant), (SUBJECT, Some(subject))] {
            if pattern.contains(placeholder) {
                let value = value.filter(|value| is_fit_for_patterns(value))?;
                pattern = pattern.replace(placeholder, value);
            }
        }
        Some(Self { action: self.action, pattern: pattern.into() })
    }

    /// A `*` in the name of a view (`event:ticker:*:BTC-USDT`) matches only a `*` of the pattern. A right to
    /// all events of a type (`event:ticker`) covers every view of them.
    fn allows(&self, action: Action, channel: &str) -> bool {
        let covers = || channel.starts_with(EVENT) && is_whole_type(&self.pattern, channel);
        self.action == action && (matches(&self.pattern, channel) || covers())
    }
}

/// Parses rights; texts that are none are left out.
pub(crate) fn parsed(texts: &[impl AsRef<str>]) -> Vec<Right> {
    texts.iter().filter_map(|text| text.as_ref().parse().ok()).collect()
}

/// The rights of roles, and further ones.
pub(crate) fn granted<'k>(
    known: &'k BTreeMap<String, Vec<Right>>,
    roles: &'k [impl AsRef<str>],
    own: &'k [impl AsRef<str>],
) -> impl Iterator<Item = Cow<'k, Right>> {
    let of_roles = roles.iter().filter_map(|role| known.get(role.as_ref())).flatten();
    of_roles.map(Cow::Borrowed).chain(parsed(own).into_iter().map(Cow::Owned))
}

/// All rights of a principal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Rights(Box<[Right]>);

impl Rights {
    pub(crate) fn new(rights: impl IntoIterator<Item = Right>) -> Self {
        let mut kept: Vec<Right> = Vec::new();
        for right in rights {
            if kept.len() < RIGHTS_MAX && !kept.contains(&right) {
                kept.push(right);
            }
        }
        Self(kept.into())
    }

    /// Whether any right permits the action, whatever it is performed on.
    pub(crate) fn has(&self, action: Action) -> bool {
        self.0.iter().any(|right| right.action == action)
    }

    /// Whether a right permits the action on a channel.
    pub(crate) fn allow(&self, action: Action, channel: &str) -> bool {
        self.0.iter().any(|right| right.allows(action, channel))
    }

    /// The rights, one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Right> {
        self.0.iter()
    }
}

/// Whether a pattern is the name of the channel that `view` shows a part of, as `event:ticker` is for the
/// view `event:ticker:binance:*`.
fn is_whole_type(pattern: &str, view: &str) -> bool {
    // Types about exchanges have two segments, so `event:exchange` is not a type.
    let is_one = pattern.starts_with(EVENT) && pattern != "event:exchange";
    is_one
        && view.strip_prefix(pattern).is_some_and(|rest| rest.starts_with(':'))
        && pattern.matches(':').count() == 1 + usize::from(pattern.starts_with("event:exchange:"))
}

/// Whether a text matches a pattern. Backtracks to the last `*` only, so the number of steps is at most the
/// product of the lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            p = star_p + 1;
            t = star_t + 1;
            star = Some((star_p, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, expected) in [
            ("zone:pjm", "zone:pjm", true),
            ("zone:pjm", "zone:pjm2", false),
            ("zone:pjm", "zone:pj", false),
            ("zone:*", "zone:pjm.hub", true),
            ("zone:*", "order:x", false),
            ("zone:a.*", "zone:a.", true),
            ("zone:a.*", "zone:ab", false),
            ("zone:*.rt", "zone:x.rt.rt", true),
            ("zone:*.rt", "zone:x.rta", false),
            ("zone:a*b*c", "zone:aXbYbZc", true),
            ("zone:a*b*c", "zone:aXc", false),
            ("zone:**", "zone:", true),
            ("zone:*x", "zone:x", true),
            ("zone:a*b", "zone:ab", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        let (many, long) = (format!("zone:{}b", "*a".repeat(70)), format!("zone:{}", "a".repeat(64)));
        assert!(!matches(&many, &long));
    }

    #[test]
    fn a_right_to_events_covers_just_the_views_that_show_no_more() {
        for (right, channel, expected) in [
            ("event:ticker", "event:ticker", true),
            ("event:ticker", "event:ticker:binance:*", true),
            ("event:ticker", "event:tickers", false),
            ("event:*", "event:trade:*:BTC/USDT", true),
            ("event:*", "event:exchange:error", true),
            ("event:exchange:error", "event:exchange:error:kraken", true),
            ("event:exchange", "event:exchange:error", false),
            ("event:ticker:binance:*", "event:ticker:binance:BTC-USDT", true),
            ("event:ticker:binance:*", "event:ticker:binance:*", true),
            ("event:ticker:binance:*", "event:ticker", false),
            ("event:ticker:binance:*", "event:ticker:*:BTC-USDT", false),
            ("event:ticker:binance:BTC*", "event:ticker:binance:*", false),
            ("event:ticker:*:BTC-USDT", "event:ticker:*:BTC-USDT", true),
            ("event:ticker:*:BTC-USDT", "event:ticker:kraken:BTC-USDT", true),
            ("event:ticker:*:BTC-USDT", "event:ticker:kraken:*", false),
            ("event:candle:a:B", "event:candle:a:B:1m", false),
        ] {
            let right: Right = format!("subscribe:{right}").parse().unwrap();
            assert_eq!(right.allows(Action::Subscribe, channel), expected, "{right} {channel}");
        }
    }

    #[test]
    fn only_rights_are_read() {
        for text in [
            "subscribe:zone:pjm.*",
            "publish:zone:*",
            "registry:zone:x",
            "order",
            "work",
            "admin",
            "subscribe:zone:{tenant}.*",
            "subscribe:order:*",
            "publish:zone:{subject}",
            "subscribe:event:ticker:*:BTC/USDT",
            "publish:event:*",
            "subscribe:registry:*",
            "registry:registry:providers",
        ] {
            assert_eq!(text.parse::<Right>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "subscribe",
            "subscribe:",
            "subscribe:*",
            "subscribe:pjm",
            "order:zone:x",
            "admin:*",
            "dance",
            "Admin",
            " admin",
            "subscribe:zone:a b",
            "subscribe:zone:a/b",
            "subscribe:event:",
            "subscribe:zone:{sub}",
            "subscribe:zone:",
            "subscribe:zone:ä",
            "openid",
            "*",
        ] {
            assert!(text.parse::<Right>().is_err(), "{text}");
        }
        // What is wrong is said for the action.
        for (text, expected) in [("subscribe:pjm", EXPECTED_CHANNEL), ("admin:*", EXPECTED)] {
            let said = text.parse::<Right>().unwrap_err().to_string();
            assert!(said.contains(expected), "{text}: {said}");
        }
        let long = format!("subscribe:zone:{}", "x".repeat(RIGHT_LEN_MAX));
        assert!(long.parse::<Right>().is_err());
        let order = "subscribe:order:6F1C1C1E-0B5E-4B1E-9D3E-0A6F4B6F2A11".parse::<Right>().unwrap();
        assert!(order.allows(Action::Subscribe, "order:6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11"));
    }

    #[test]
    fn a_placeholder_takes_no_more_than_a_name() {
        let right: Right = "subscribe:zone:{tenant}.*".parse().unwrap();
        let of = |tenant| right.of("alice", tenant).map(|right| right.to_string());
        assert_eq!(of(Some("acme")).as_deref(), Some("subscribe:zone:acme.*"));
        for tenant in [None, Some(""), Some("*"), Some("a.b"), Some("a:b"), Some("{subject}"), Some("a b")] {
            assert_eq!(of(tenant), None, "{tenant:?}");
        }
        let mine: Right = "publish:zone:u.{subject}".parse().unwrap();
        assert_eq!(mine.of("alice", None).unwrap().to_string(), "publish:zone:u.alice");
        assert_eq!(mine.of("*", None), None);
    }

    #[test]
    fn what_reaches_all_tenants_is_no_right_within_one() {
        for text in [
            "admin",
            "work",
            "subscribe:order:*",
            "publish:order:*",
            "subscribe:registry:*",
            "registry:registry:*",
        ] {
            let right: Right = text.parse().unwrap();
            assert_eq!(right.of("alice", Some("acme")), None, "{text}");
            assert!(right.of("alice", None).is_some(), "{text}");
        }
    }
}
