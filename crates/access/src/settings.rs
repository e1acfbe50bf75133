//! What can be configured about who may do what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::api_key::is_subject;
use crate::rights::{Action, Right};

/// Whether anybody is asked who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nobody is: whoever reaches the gateway may do everything.
    Off,
    /// Everybody is.
    On,
}

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// `"on"` or `"off"`. Unset: on where there are `issuers`, a `keys_file` or `certificates`, else off; and
    /// off is refused where other machines reach the gateway. Default unset.
    pub mode: Option<Mode>,
    /// How long a WebSocket that must show a token may take for it, in seconds. Default 5.
    pub within_s: u64,
    /// Whether a token may come in the address, as `?access_token=`. Addresses are written into the logs
    /// of proxies. Default false.
    pub token_in_url: bool,
    /// By how much the clocks of issuers may differ from this one, in seconds. Default 30.
    pub leeway_s: u64,
    /// The longest time for which a token may be valid from now on, in seconds. It is also how long a
    /// revocation is kept. Default 86,400 (a day).
    pub lifetime_max_s: u64,
    /// How many tokens that were verified are remembered, about, so that who shows one of them again (from
    /// another tab, or coming back after a deploy) costs no look at a signature: some 50 bytes each while its
    /// client is there, and 300 after that. 0: none. Default 16,384.
    pub verified_max: usize,
    /// API keys, in the file that `zonewire key make` writes. Read anew when it changes. Default none.
    pub keys_file: Option<PathBuf>,
    /// Rights of those who show nothing, such as `["subscribe:zone:public.*"]`; only `subscribe`. Default
    /// none.
    pub anonymous: Vec<String>,
    /// What the roles in tokens and of keys stand for, by name. `viewer`, `trader`, `publisher`, `worker`
    /// and `operator` are there unless they are given another meaning.
    pub roles: BTreeMap<String, Vec<String>>,
    /// Who issues tokens. Default none.
    pub issuers: Vec<IssuerConfig>,
    /// Who comes with which certificate. Default none.
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
    /// What its tokens have as `iss`, letter by letter.
    pub issuer: String,
    /// What its tokens may have as `aud`; one of them is enough. Default `["zonewire"]`.
    pub audience: Vec<String>,
    /// Where its public keys are: files of PEM or a JWK Set, or `https://` addresses of a JWK Set. All
    /// keys of all of them are valid, so that one can follow the other.
    pub keys: Vec<String>,
    /// Files, each with a secret that its tokens are signed with by HS256; all are valid.
    pub secret_files: Vec<PathBuf>,
    /// The claim with the roles: a list, or a text with spaces. A dot leads into an object, as in
    /// `realm_access.roles`. Default `roles`.
    pub roles_claim: String,
    /// The claim with rights themselves, such as `["subscribe:zone:pjm"]`. Default `rights`.
    pub rights_claim: String,
    /// The claim with the tenant. Default `tenant`.
    pub tenant_claim: String,
    /// The tenant of all its tokens, whatever they say. Default none.
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
    /// A name that a certificate bears, with its kind: `CN:feed-1` (the one common name of its subject), or of
    /// its subject's alternative names `DNS:feed-1.example.com`, `URI:spiffe://example.com/feed` or
    /// `email:desk@example.com`. Compared letter by letter.
    pub name: String,
    /// Whose it is. Default: the name, without its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Its roles.
    pub roles: Vec<String>,
    /// Rights besides those of its roles.
    pub rights: Vec<String>,
    /// Its tenant. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// What kinds of names of certificates are called.
const KINDS_OF_NAMES: [&str; 4] = ["CN:", "DNS:", "URI:", "email:"];

/// The most certificates that may be listed.
const CERTIFICATES_MAX: usize = 10_000;

/// What roles stand for unless the settings say otherwise.
pub(crate) const ROLES: [(&str, &[&str]); 5] = [
    ("viewer", &["subscribe:zone:*", "subscribe:event:*"]),
    ("trader", &["subscribe:zone:*", "subscribe:event:*", "order"]),
    ("publisher", &["publish:zone:*", "publish:event:*"]),
    ("worker", &["work", "publish:order:*"]),
    ("operator", &["admin"]),
];

/// The most issuers, and sources of keys of one of them.
pub(crate) const SOURCES_MAX: usize = 16;

/// The most verified tokens that may be remembered.
const VERIFIED_MAX: usize = 1_000_000;

/// A setting that cannot be used: its key below `auth`, and what is wrong.
pub type Wrong = (String, String);

impl AuthConfig {
    /// Whether anybody is asked who they are.
    pub fn is_on(&self) -> bool {
        match self.mode {
            Some(mode) => mode == Mode::On,
            None => self.has_source(),
        }
    }

    fn has_source(&self) -> bool {
        !self.issuers.is_empty() || self.keys_file.is_some() || !self.certificates.is_empty()
    }

    /// All that cannot be used. No file is read for it.
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
            let right = text.parse::<Right>();
            let problem = right.as_ref().err().map(ToString::to_string);
            require("anonymous", right.is_ok(), &|| problem.clone().unwrap_or_default());
            let may_be_anonymous =
                right.as_ref().is_ok_and(|right| right.action() == Action::Subscribe && !text.contains('{'));
            require("anonymous", right.is_err() || may_be_anonymous, &|| {
                format!("expected subscribe:<channel> alone, without placeholders; found {text:?}")
            });
        }
        for (name, rights) in &self.roles {
            require("roles", is_word(name), &|| format!("{name:?} is no name of a role"));
            for text in rights {
                let right = text.parse::<Right>();
                require("roles", right.is_ok(), &|| {
                    format!("{name}: {}", right.as_ref().err().map(ToString::to_string).unwrap_or_default())
                });
            }
        }
        require("issuers", self.issuers.len() <= SOURCES_MAX, &|| {
            format!("expected at most {SOURCES_MAX}, found {}", self.issuers.len())
        });
        for (index, issuer) in self.issuers.iter().enumerate() {
            let twice = self.issuers[..index].iter().any(|other| other.issuer == issuer.issuer);
            require("issuers", !twice, &|| format!("{:?} is there twice", issuer.issuer));
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
            require("certificates", is_new, &|| format!("{:?} is there twice", certificate.name));
            let is_role = |role: &String| self.roles.contains_key(role) || is_usual_role(role);
            for problem in certificate.check(is_role) {
                require("certificates", false, &|| format!("{:?}: {problem}", certificate.name));
            }
        }
        wrong
    }
}

impl CertificateConfig {
    /// Whose it is.
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
        require(!self.issuer.is_empty(), "`issuer` must be what its tokens have as `iss`".to_owned());
        let has_audience = !self.audience.is_empty() && self.audience.iter().all(|name| !name.is_empty());
        require(has_audience, "`audience` must name what its tokens may have as `aud`".to_owned());
        let count = self.keys.len() + self.secret_files.len();
        require(count > 0, "expected `keys` or `secret_files`: nothing could be verified".to_owned());
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

/// Where keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// What answers to GET with a JWK Set.
    Url(Url),
}

impl Place {
    /// Reads a place as the settings have it.
    ///
    /// # Errors
    /// It is an address over which somebody else could give other keys, or none at all.
    pub(crate) fn of(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a place of `keys` is empty".to_owned());
        }
        if !text.contains("://") {
            return Ok(Self::File(PathBuf::from(text)));
        }
        let url = Url::parse(text).map_err(|error| format!("a place of `keys` is no address: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a place of `keys` holds a password; keys that verify are public".to_owned());
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
            "http" => Err(format!("{url} must begin with https://: on the way others could give other keys")),
            other => Err(format!("a place of `keys` begins with {other}://; expected https://, or a file")),
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
