//! API keys: secrets of programs, which expire only if a time is given. The key contains its name in clear
//! text, by which it is found, listed and revoked; of the secret, only a digest is stored.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::access::marks;
use crate::crypto::random;
use crate::principal::{Kind, Principal, Shown, credential_hash};
use crate::rights::{Right, granted};

/// The prefix of every key. After it come the key's name, `_`, and the secret.
pub const KEY_PREFIX: &str = "zwk_";

/// A digest that no key has, to compare unknown keys with.
const NOBODYS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The most keys in one file.
pub const API_KEYS_MAX: usize = 10_000;

/// A key as it is stored: `[[key]]` in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// The key's name, in clear text in the key itself.
    pub name: String,
    /// The SHA-256 of the key, in hexadecimal digits. A key has 256 random bits, so a fast digest is safe.
    pub sha256: String,
    /// The subject that it authenticates.
    pub subject: String,
    /// Its roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Rights in addition to those of the roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rights: Vec<String>,
    /// Its tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// When it was made, in seconds since 1970.
    pub created_at: i64,
    /// When it expires, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
}

/// A file of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyFile {
    /// The keys.
    #[serde(default, rename = "key")]
    pub keys: Vec<ApiKey>,
}

impl ApiKeyFile {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong, without anything of the content.
    pub fn read(text: &str) -> Result<Self, String> {
        // The error's `Display` would quote the line, which may contain a digest.
        let file: Self = toml::from_str(text).map_err(|error: toml::de::Error| {
            let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or(""));
            format!("line {}: {}", before.matches('\n').count() + 1, error.message().replace('\n', ", "))
        })?;
        if file.keys.len() > API_KEYS_MAX {
            return Err(format!("has more than {API_KEYS_MAX} keys"));
        }
        let mut names = HashSet::new();
        for key in &file.keys {
            let is_digest = key.sha256.len() == 64 && key.sha256.bytes().all(|b| b.is_ascii_hexdigit());
            let problem = if !is_name(&key.name) {
                Some("`name` must be 1 to 32 of a-z 0-9")
            } else if !is_digest {
                Some("`sha256` must be 64 hexadecimal digits")
            } else if !is_subject(&key.subject) {
                Some("`subject` must be 1 to 128 visible characters")
            } else if !names.insert(&key.name) {
                Some("another key has this name")
            } else {
                None
            };
            if let Some(problem) = problem {
                return Err(format!("key {:?}: {problem}", key.name));
            }
            for right in &key.rights {
                right.parse::<Right>().map_err(|error| format!("key {:?}: {error}", key.name))?;
            }
        }
        Ok(file)
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("texts and numbers are TOML")
    }
}

/// Whether a text is valid as a subject.
pub(crate) fn is_subject(text: &str) -> bool {
    (1..=128).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Makes a key. Returns the key, for its holder, and its stored form: `stored` with its name and digest
/// replaced.
pub fn make_api_key(mut stored: ApiKey) -> (String, ApiKey) {
    let name: String = random::<6>().iter().map(|byte| format!("{byte:02x}")).collect();
    let key = format!("{KEY_PREFIX}{name}_{}", URL_SAFE_NO_PAD.encode(random::<32>()));
    stored.sha256 = digest(&key);
    stored.name = name;
    (key, stored)
}

/// The digest of a key, in hexadecimal digits.
fn digest(key: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name in a key, if it is of the right form.
pub(crate) fn name_of(key: &str) -> Option<&str> {
    let (name, secret) = key.strip_prefix(KEY_PREFIX)?.split_once('_')?;
    (is_name(name) && !secret.is_empty()).then_some(name)
}

/// All keys, indexed for look-ups.
#[derive(Debug, Default)]
pub(crate) struct ApiKeys {
    by_name: HashMap<String, Known>,
    by_credential: HashMap<u64, Arc<Principal>>,
}

#[derive(Debug)]
struct Known {
    sha256: String,
    principal: Arc<Principal>,
}

impl ApiKeys {
    pub(crate) fn of(file: &ApiKeyFile, roles: &BTreeMap<String, Vec<Right>>, marking: &[String]) -> Self {
        let mut keys = Self::default();
        for key in &file.keys {
            let principal = Principal::new(
                &Shown {
                    kind: Kind::Key,
                    // Issuers of tokens have names, so none of them can produce the same owner.
                    issuer: "",
                    tenant: key.tenant.as_deref(),
                    subject: &key.subject,
                    credential: Some(&key.name),
                    issued_at: Some(key.created_at),
                    expires_at: key.expires_at,
                },
                granted(roles, &key.roles, &key.rights),
            );
            let principal = Arc::new(principal.marked(marks(marking, &key.roles)));
            keys.by_credential.insert(credential_hash(&key.name), Arc::clone(&principal));
            let known = Known { sha256: key.sha256.to_ascii_lowercase(), principal };
            keys.by_name.insert(key.name.clone(), known);
        }
        keys
    }

    /// The principal of a key. A wrong secret takes as long as an unknown name.
    pub(crate) fn find(&self, key: &str) -> Option<Arc<Principal>> {
        let shown = digest(key);
        let known = name_of(key).and_then(|name| self.by_name.get(name));
        let stored = known.map_or(NOBODYS, |known| known.sha256.as_str());
        let is_right = bool::from(stored.as_bytes().ct_eq(shown.as_bytes()));
        known.filter(|_| is_right).map(|known| Arc::clone(&known.principal))
    }

    /// Whether a key belongs to a subject.
    pub(crate) fn has_subject(&self, subject: &str) -> bool {
        self.by_name.values().any(|known| known.principal.subject() == Some(subject))
    }

    /// The current principal of a key.
    pub(crate) fn of_credential(&self, credential: u64) -> Option<&Arc<Principal>> {
        self.by_credential.get(&credential)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::{Resource, may};
    use crate::rights::Action;

    fn blank() -> ApiKey {
        ApiKey {
            subject: "feed".to_owned(),
            roles: vec!["publisher".to_owned(), "unheard of".to_owned()],
            rights: vec!["subscribe:zone:x".to_owned()],
            created_at: 5,
            ..ApiKey::default()
        }
    }

    #[test]
    fn a_key_is_known_by_its_digest_and_nothing_else() {
        let (key, stored) = make_api_key(blank());
        let (_other, other_stored) = make_api_key(blank());
        let file = ApiKeyFile { keys: vec![stored.clone(), other_stored.clone()] };
        let text = file.to_toml();
        assert!(!text.contains(&key[17..]), "{text}");
        let read = ApiKeyFile::read(&text).unwrap();
        assert_eq!(read, file);
        let roles = BTreeMap::from([("publisher".to_owned(), vec!["publish:zone:*".parse().unwrap()])]);
        let keys = ApiKeys::of(&read, &roles, &[]);
        let found = keys.find(&key).unwrap();
        assert_eq!((found.kind(), found.subject()), (Kind::Key, Some("feed")));
        assert_eq!(may(&found, Action::Publish, Resource::Channel("zone:a")), Ok(()));
        assert_eq!(may(&found, Action::Subscribe, Resource::Channel("zone:x")), Ok(()));
        assert!(may(&found, Action::Subscribe, Resource::Channel("zone:a")).is_err());
        let swapped = key.replace(&stored.name, &other_stored.name);
        for wrong in
            ["", "zwk_", "zwk__", &key[..key.len() - 1], &format!("{key}x"), &swapped, &stored.sha256]
        {
            assert!(keys.find(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn what_has_not_the_form_of_a_key_is_none_whatever_its_digest() {
        let keys = |shown: &str, name: &str| {
            let key = ApiKey { name: name.to_owned(), sha256: digest(shown), ..blank() };
            ApiKeys::of(&ApiKeyFile { keys: vec![key] }, &BTreeMap::new(), &[])
        };
        for (shown, name, is_one) in
            [("zwk_k_x", "k", true), ("zwk_k_", "k", false), ("zwk_K_x", "K", false), ("k_x", "k", false)]
        {
            assert_eq!(keys(shown, name).find(shown).is_some(), is_one, "{shown}");
        }
    }

    #[test]
    fn every_key_can_stand_in_a_header() {
        // A key must consist of `tchar` (RFC 9110, section 5.6.2), because it is also sent as a
        // subprotocol.
        let is_tchar = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        for _ in 0..100 {
            assert!(make_api_key(blank()).0.chars().all(is_tchar));
        }
    }

    #[test]
    fn a_file_says_what_is_wrong_with_it() {
        let (_, stored) = make_api_key(blank());
        let with = |change: &dyn Fn(&mut ApiKey)| {
            let mut key = stored.clone();
            change(&mut key);
            ApiKeyFile::read(&ApiKeyFile { keys: vec![key] }.to_toml())
        };
        assert!(with(&|_| {}).is_ok());
        assert!(with(&|key| key.sha256.clear()).unwrap_err().contains("sha256"));
        assert!(with(&|key| key.name = "A_b".to_owned()).unwrap_err().contains("name"));
        assert!(with(&|key| key.subject.clear()).unwrap_err().contains("subject"));
        assert!(with(&|key| key.rights = vec!["x".to_owned()]).unwrap_err().contains("is not a right"));
        let twice = ApiKeyFile { keys: vec![stored.clone(), stored] };
        assert!(ApiKeyFile::read(&twice.to_toml()).unwrap_err().contains("this name"));
        let unreadable = ApiKeyFile::read("[[key]]\nsecret = \"hush hush\"\n").unwrap_err();
        assert!(unreadable.starts_with("line ") && !unreadable.contains("hush"), "{unreadable}");
        assert_eq!(ApiKeyFile::read("").unwrap().keys, []);
    }
}
