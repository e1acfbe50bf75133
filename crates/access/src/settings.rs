//! The settings of authentication and rights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::api_key::is_subject;
use crate::rights::{Action, Right};

/// Whether clients have to authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// They do not: everybody who reaches the gateway may do everything.
    Off,
    /// They do.
    On,
}

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// `"on"` or `"off"`. Unset: on if there are `issuers`, a `keys_file` or `certificates`, otherwise off;
    /// off is refused if other machines can reach the gateway. Default unset.
    pub mode: Option<Mode>,
    /// How long a WebSocket that needs a token may take to send it, in seconds. Default 5.
    pub within_s: u64,
    /// Whether tokens are accepted in the address, as `?access_token=`. Proxies write addresses into their
    /// logs. Default false.
    pub token_in_url: bool,
    /// By how much the clocks of issuers may differ from this machine's, in seconds. Default 30.
    pub leeway_s: u64,
    /// The longest remaining validity of a token, in seconds. Also how long a revocation is kept. Default
    /// 86,400 (a day).
    pub lifetime_max_s: u64,
    /// About how many verified tokens are cached, so that a client that shows one again (from another tab,
    /// or when it reconnects after a deploy) costs no signature check: about 50 bytes each while the client
    /// is connected, and 300 after that. 0: none. Default 16,384.
    pub verified_max: usize,
    /// The file of API keys that `zonewire key make` writes. Reloaded when it changes. Default none.
    pub keys_file: Option<PathBuf>,
    /// Rights of clients without a credential, such as `["subscribe:zone:public.*"]`; only `subscribe`.
    /// Default none.
    pub anonymous: Vec<String>,
    /// The rights that each role in tokens and API keys grants. `viewer`, `trader`, `publisher`, `worker`
    /// and `operator` are predefined, and can be redefined.
    pub roles: BTreeMap<String, Vec<String>>,
    /// The issuers of tokens. Default none.
    pub issuers: Vec<IssuerConfig>,
    /// The client certificates that grant rights. Default none.
    pub certificates: Vec<CertificateConfig>,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            mode: None,
            within_s: 5,
            token_in_url: false,
            leeway_s: 30,
            lifetime_max_s: 86_400,
            verified_max: 16_384,
            keys_file: None,
            anonymous: Vec::new(),
            roles: BTreeMap::new(),
            issuers: Vec::new(),
            certificates: Vec::new(),
        }
    }
}

/// `[[auth.issuers]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IssuerConfig {
    /// The `iss` of its tokens, compared exactly.
    pub issuer: String,
    /// The accepted `aud` of its tokens; one match is enough. Default `["zonewire"]`.
    pub audience: Vec<String>,
    /// Sources of its public keys: files of PEM or a JWK Set, or `https://` addresses of a JWK Set. The
    /// keys of all sources are valid, so that keys can be rotated.
    pub keys: Vec<String>,
    /// Files with one secret each, for tokens signed with HS256; all are valid.
    pub secret_files: Vec<PathBuf>,
    /// The claim with the roles: a list, or a text with spaces. A dot leads into an object, as in
    /// `realm_access.roles`. Default `roles`.
    pub roles_claim: String,
    /// The claim with individual rights, such as `["subscribe:zone:pjm"]`. Default `rights`.
    pub rights_claim: String,
    /// The claim with the tenant. Default `tenant`.
    pub tenant_claim: String,
    /// The tenant of all its tokens, whatever they claim. Default none.
    pub tenant: Option<String>,
}

impl Default for IssuerConfig {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: vec!["zonewire".to_owned()],
            keys: Vec::new(),
            secret_files: Vec::new(),
            roles_claim: "roles".to_owned(),
            rights_claim: "rights".to_owned(),
            tenant_claim: "tenant".to_owned(),
            tenant: None,
        }
    }
}

/// `[[auth.certificates]]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CertificateConfig {
    /// A name in the certificate, with its kind: `CN:feed-1` (the only common name of its subject), or one
    /// of the subject's alternative names: `DNS:feed-1.example.com`, `URI:spiffe://example.com/feed` or
    /// `email:desk@example.com`. Compared exactly.
    pub name: String,
    /// The subject that it authenticates. Default: the name without its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Its roles.
    pub roles: Vec<String>,
    /// Rights in addition to those of the roles.
    pub rights: Vec<String>,
    /// Its tenant. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// The prefixes of the kinds of names.
const KINDS_OF_NAMES: [&str; 4] = ["CN:", "DNS:", "URI:", "email:"];

/// The most certificates that can be listed.
const CERTIFICATES_MAX: usize = 10_000;

/// The predefined roles.
pub(crate) const ROLES: [(&str, &[&str]); 5] = [
    ("viewer", &["subscribe:zone:*", "subscribe:event:*"]),
    ("trader", &["subscribe:zone:*", "subscribe:event:*", "order"]),
    ("publisher", &["publish:zone:*", "publish:event:*"]),
    ("worker", &["work", "publish:order:*"]),
    ("operator", &["admin"]),
];

/// The most issuers, and the most sources of keys of each.
pub(crate) const SOURCES_MAX: usize = 16;

/// The most verified tokens that can be cached.
const VERIFIED_MAX: usize = 1_000_000;

/// An invalid setting: its key below `auth`, and what is wrong.
pub type Wrong = (String, String);

impl AuthConfig {
    /// Whether authentication is on.
    pub fn is_on(&self) -> bool {
        match self.mode {
            Some(mode) => mode == Mode::On,
            None => self.has_source(),
        }
    }

    fn has_source(&self) -> bool {
        !self.issuers.is_empty() || self.keys_file.is_some() || !self.certificates.is_empty()
    }

    /// All invalid settings. Reads no file.
    pub fn check(&self) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        let mut require = |key: &str, holds: bool, problem: &dyn Fn() -> String| {
            if !holds {
                wrong.push((key.to_owned(), problem()));
            }
        };
        let has_source = self.has_source() || !self.anonymous.is_empty();
        require("mode", self.mode != Some(Mode::On) || has_source, &|| {
            "nobody could show anything: name who issues tokens in auth.issuers, API keys in auth.keys_file, or \
             certificates in auth.certificates; `zonewire config init` writes a configuration that works"
                .to_owned()
        });
        for (key, value) in [("within_s", self.within_s), ("lifetime_max_s", self.lifetime_max_s)] {
            require(key, value > 0, &|| "expected 1 or more, found 0".to_owned());
        }
        require("leeway_s", self.leeway_s <= 600, &|| {
            format!("expected at most 600: clocks do not differ by more; found {}", self.leeway_s)
        });
        require("verified_max", self.verified_max <= VERIFIED_MAX, &|| {
            format!("expected at most {VERIFIED_MAX}, found {}", self.verified_max)
        });
        for text in &self.anonymous {
            match text.parse::<Right>() {
                Err(error) => require("anonymous", false, &|| error.to_string()),
                Ok(right) => {
                    let is_good = right.action() == Action::Subscribe && !text.contains('{');
                    require("anonymous", is_good, &|| {
                        format!("expected only subscribe:<channel>, without placeholders; found {text:?}")
                    });
                }
            }
        }
        for (name, rights) in &self.roles {
            require("roles", is_word(name), &|| format!("{name:?} is not a valid name for a role"));
            for text in rights {
                if let Err(error) = text.parse::<Right>() {
                    require("roles", false, &|| format!("{name}: {error}"));
                }
            }
        }
        require("issuers", self.issuers.len() <= SOURCES_MAX, &|| {
            format!("expected at most {SOURCES_MAX}, found {}", self.issuers.len())
        });
        for (index, issuer) in self.issuers.iter().enumerate() {
            let twice = self.issuers[..index].iter().any(|other| other.issuer == issuer.issuer);
            require("issuers", !twice, &|| format!("{:?} occurs twice", issuer.issuer));
            for problem in issuer.check() {
                require("issuers", false, &|| format!("{:?}: {problem}", issuer.issuer));
            }
        }
        require("certificates", self.certificates.len() <= CERTIFICATES_MAX, &|| {
            format!("expected at most {CERTIFICATES_MAX}, found {}", self.certificates.len())
        });
        let mut names = BTreeSet::new();
        for certificate in &self.certificates {
            let is_new = names.insert(&certificate.name);
            require("certificates", is_new, &|| format!("{:?} occurs twice", certificate.name));
            let is_role = |role: &String| self.roles.contains_key(role) || is_usual_role(role);
            for problem in certificate.check(is_role) {
                require("certificates", false, &|| format!("{:?}: {problem}", certificate.name));
            }
        }
        wrong
    }
}

impl CertificateConfig {
    /// The subject that it authenticates.
    pub fn subject(&self) -> &str {
        let value = || KINDS_OF_NAMES.iter().find_map(|kind| self.name.strip_prefix(kind));
        self.subject.as_deref().unwrap_or_else(|| value().unwrap_or_default())
    }

    fn check(&self, is_role: impl Fn(&String) -> bool) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut require = |holds: bool, problem: &str| {
            if !holds {
                wrong.push(problem.to_owned());
            }
        };
        let has_kind = KINDS_OF_NAMES.iter().any(|kind| self.name.starts_with(kind));
        require(
            has_kind,
            "`name` must say of which kind it is: CN:…, DNS:…, URI:… or email:…, such as \
             \"URI:spiffe://example.com/feed\"",
        );
        require(
            !has_kind || is_subject(self.subject()),
            "`subject`, or the name without its kind, must be 1 to 128 visible characters",
        );
        for role in self.roles.iter().filter(|role| !is_role(role)) {
            require(false, &format!("there is no role {role:?}: see auth.roles"));
        }
        for right in &self.rights {
            if let Err(error) = right.parse::<Right>() {
                require(false, &error.to_string());
            }
        }
        let has_tenant = self.tenant.as_ref().is_none_or(|tenant| is_word(tenant));
        require(has_tenant, "`tenant` must be 1 to 64 of A-Z a-z 0-9 _ -");
        wrong
    }
}

fn is_usual_role(role: &str) -> bool {
    ROLES.iter().any(|(name, _)| *name == role)
}

impl IssuerConfig {
    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut require = |holds: bool, problem: String| {
            if !holds {
                wrong.push(problem);
            }
        };
        require(!self.issuer.is_empty(), "`issuer` must be the `iss` of its tokens".to_owned());
        let has_audience = !self.audience.is_empty() && self.audience.iter().all(|name| !name.is_empty());
        require(has_audience, "`audience` must name at least one `aud` of its tokens".to_owned());
        let count = self.keys.len() + self.secret_files.len();
        require(
            count > 0,
            "expected `keys` or `secret_files`: without them no token can be verified".to_owned(),
        );
        require(
            count <= SOURCES_MAX,
            format!("expected at most {SOURCES_MAX} keys and secrets, found {count}"),
        );
        for place in &self.keys {
            if let Err(problem) = Place::of(place) {
                require(false, problem);
            }
        }
        for (name, claim) in [
            ("roles_claim", &self.roles_claim),
            ("rights_claim", &self.rights_claim),
            ("tenant_claim", &self.tenant_claim),
        ] {
            require(!claim.is_empty(), format!("`{name}` must name a claim"));
        }
        let has_tenant = self.tenant.as_ref().is_none_or(|tenant| is_word(tenant));
        require(has_tenant, "`tenant` must be 1 to 64 of A-Z a-z 0-9 _ -".to_owned());
        wrong
    }
}

fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// A source of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// An address that answers GET with a JWK Set.
    Url(Url),
}

impl Place {
    /// Parses a source as it is written in the settings.
    ///
    /// # Errors
    /// It is invalid, or an address over which others could substitute keys.
    pub(crate) fn of(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an entry of `keys` is empty".to_owned());
        }
        if !text.contains("://") {
            return Ok(Self::File(PathBuf::from(text)));
        }
        let url = Url::parse(text)
            .map_err(|error| format!("an entry of `keys` is not a valid address: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "an entry of `keys` contains a password; keys that verify tokens are public".to_owned()
            );
        }
        let is_here = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        match url.scheme() {
            "https" => Ok(Self::Url(url)),
            "http" if is_here => Ok(Self::Url(url)),
            "http" => Err(format!(
                "{url} must begin with https://: otherwise others could substitute keys on the way"
            )),
            other => Err(format!("an entry of `keys` begins with {other}://; expected https://, or a file")),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(url) => write!(f, "{url}"),
        }
    }
}
