//! Authentication: turns a credential into a principal.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use serde_json::Value;

use crate::api_key::{ApiKeyFile, ApiKeys, KEY_PREFIX, is_subject};
use crate::certificate::{Certificate, Certificates};
use crate::crypto::install;
use crate::keys::{Key, read_public, read_secret};
use crate::principal::{Kind, Principal, Shown, SignedWith};
use crate::revoked::{Revocation, Revocations, Revoked};
use crate::rights::{RIGHTS_MAX, Right, Rights, granted, parsed};
use crate::settings::{AuthConfig, IssuerConfig, Place, ROLES, Wrong};
use crate::source::{Contents, Source, Sources};
use crate::verified::{Verified, digest};

/// The longest token, in bytes.
pub const TOKEN_LEN_MAX: usize = 8 << 10;

/// The most roles that [`Access::marking`] can track.
pub const MARKS_MAX: usize = 16;

/// The most distinct sets of rights that are shared, so that each is in memory once.
const KNOWN_RIGHTS_MAX: usize = 4_096;

/// The longest `jti`, in bytes.
const TOKEN_ID_LEN_MAX: usize = 256;

/// The authentication state of a gateway. All of it is in memory, so every question is answered at once.
pub struct Access {
    config: AuthConfig,
    issuers: Vec<Issuer>,
    roles: BTreeMap<String, Vec<Right>>,
    /// Roles that principals are marked with; the bit of a mark is the index here.
    marking: Vec<String>,
    api_keys: RwLock<ApiKeys>,
    certificates: Certificates,
    anonymous: Arc<Principal>,
    sources: Mutex<Sources>,
    /// Keys that may have signed the tokens of current clients.
    held: RwLock<HashSet<SignedWith>>,
    revocations: RwLock<Revocations>,
    known_rights: Mutex<HashSet<Arc<Rights>>>,
    verified: Mutex<Verified>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("is_on", &self.config.is_on()).finish_non_exhaustive()
    }
}

/// An issuer of tokens.
struct Issuer {
    config: IssuerConfig,
    /// One validation for each algorithm.
    validations: Vec<Validation>,
    keys: RwLock<Arc<[Key]>>,
}

/// Why a credential was refused. Contains nothing of the credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It is neither a token nor an API key.
    #[error("this is neither a JSON Web Token (RFC 7519) nor an API key of this gateway")]
    Malformed,
    /// It is longer than allowed.
    #[error("the token is longer than {TOKEN_LEN_MAX} bytes")]
    TooLong,
    /// No known issuer issued it.
    #[error("the gateway does not know the issuer of the token (`iss`)")]
    UnknownIssuer,
    /// None of its issuer's keys has the token's algorithm.
    #[error("the token is signed with an algorithm that its issuer does not use (`alg`)")]
    Algorithm,
    /// It names a key that its issuer does not have.
    #[error("the gateway does not know the key that signed the token (`kid`)")]
    UnknownKey,
    /// It names a key that is not known yet, or its issuer has no known key at all. Keys are being fetched;
    /// with them, the same token may be valid.
    #[error(
        "the gateway does not know the key that signed the token yet, and is fetching its issuer's keys: \
         try again with the same token"
    )]
    KeysAwaited {
        /// After how many seconds to try again: 1 to 61.
        after_s: u32,
    },
    /// The signature does not match.
    #[error("the signature of the token is invalid")]
    Signature,
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// It is not valid yet.
    #[error("the token is not valid yet (`nbf`, `iat`)")]
    NotYet,
    /// It is valid for longer than allowed.
    #[error("the token is valid for longer than this gateway allows (`exp`, auth.lifetime_max_s)")]
    Lifetime,
    /// Its audience is somebody else.
    #[error("the token is not for this gateway (`aud`)")]
    Audience,
    /// A claim is missing or malformed.
    #[error("the token must have `iss`, `aud`, `exp` and `sub`, each in the form that RFC 7519 requires")]
    Claims,
    /// It was revoked.
    #[error("the token, the API key or the certificate was revoked")]
    Revoked,
    /// There is no such API key.
    #[error("there is no such API key, or it is no longer valid")]
    UnknownApiKey,
    /// The certificate has expired.
    #[error("the certificate has expired")]
    CertificateExpired,
    /// The authority that verified the certificate may have been removed since.
    #[error("the gateway's authorities have changed since the certificate was shown: reconnect")]
    AuthorityWithdrawn,
}

impl Refused {
    /// All reasons.
    pub const ALL: [Self; 16] = [
        Self::Malformed,
        Self::TooLong,
        Self::UnknownIssuer,
        Self::Algorithm,
        Self::UnknownKey,
        Self::KeysAwaited { after_s: 1 },
        Self::Signature,
        Self::Expired,
        Self::NotYet,
        Self::Lifetime,
        Self::Audience,
        Self::Claims,
        Self::Revoked,
        Self::UnknownApiKey,
        Self::CertificateExpired,
        Self::AuthorityWithdrawn,
    ];

    /// The reason as the label of a counter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::UnknownIssuer => "unknown_issuer",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::KeysAwaited { .. } => "keys_awaited",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Lifetime => "lifetime",
            Self::Audience => "audience",
            Self::Claims => "claims",
            Self::Revoked => "revoked",
            Self::UnknownApiKey => "unknown_api_key",
            Self::CertificateExpired => "certificate_expired",
            Self::AuthorityWithdrawn => "authority_withdrawn",
        }
    }

    /// After how many seconds the same credential may be valid, because keys are being fetched.
    pub const fn after_s(self) -> Option<u32> {
        match self {
            Self::KeysAwaited { after_s } => Some(after_s),
            _ => None,
        }
    }
}

/// What has changed for an authenticated principal since it was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing; its rights are unchanged.
    Holds,
    /// It has other rights now.
    Changed(Arc<Principal>),
    /// It is no longer valid.
    Revoked,
    /// Its issuer no longer has the key that signed its token; a new token may be valid.
    KeyWithdrawn,
}

/// A source of keys that should be read now.
#[derive(Debug, Clone)]
pub struct Due {
    index: usize,
    /// The source.
    pub place: Place,
}

/// The outcome of reading a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// The content is unchanged.
    Same,
    /// The content has changed and is in effect now. Current clients have to be checked again.
    News,
    /// It could not be read, or its content is unusable; the previous content stays in effect.
    Problem {
        /// What is wrong, in words, and without anything of the content.
        problem: String,
        /// Whether this is the first failure, or a different one than before.
        is_news: bool,
    },
}

/// The condition of a source of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceHealth {
    /// The name of the source.
    pub place: String,
    /// When it last provided usable content, in seconds since 1970.
    pub confirmed_at: Option<i64>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// The bits of those tracked roles that are among `roles`.
pub(crate) fn marks(marking: &[String], roles: &[impl AsRef<str>]) -> u16 {
    let has = |wanted: &String| roles.iter().any(|role| role.as_ref() == wanted);
    marking.iter().enumerate().fold(0, |marks, (place, wanted)| marks | (u16::from(has(wanted)) << place))
}

impl Access {
    /// Creates the state from valid settings. No source has been read yet; see [`due`](Self::due).
    ///
    /// # Errors
    /// The settings that are not valid.
    pub fn new(config: AuthConfig) -> Result<Self, Vec<Wrong>> {
        install();
        let wrong = config.check();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let mut roles = BTreeMap::from(ROLES.map(|(name, rights)| (name.to_owned(), parsed(rights))));
        roles.extend(config.roles.iter().map(|(name, rights)| (name.clone(), parsed(rights))));
        let mut sources = Vec::new();
        for (index, issuer) in config.issuers.iter().enumerate() {
            for place in &issuer.keys {
                let place = Place::of(place).map_err(|problem| vec![("issuers".to_owned(), problem)])?;
                sources.push(Source::new(Contents::Public(index), place));
            }
            let secrets = issuer.secret_files.iter().cloned().map(Place::File);
            sources.extend(secrets.map(|place| Source::new(Contents::Secret(index), place)));
        }
        sources
            .extend(config.keys_file.clone().map(|file| Source::new(Contents::ApiKeys, Place::File(file))));
        let issuers = config.issuers.iter().map(|issuer| Issuer {
            config: issuer.clone(),
            validations: ALGORITHMS
                .map(|algorithm| validation(algorithm, &issuer.issuer, &issuer.audience, config.leeway_s))
                .into(),
            keys: RwLock::new(Arc::from([])),
        });
        let certificates = Certificates::of(&config.certificates, &roles, &[]);
        Ok(Self {
            issuers: issuers.collect(),
            roles,
            marking: Vec::new(),
            api_keys: RwLock::default(),
            certificates,
            anonymous: Arc::new(Principal::anonymous(Rights::new(parsed(&config.anonymous)))),
            sources: Mutex::new(Sources::new(sources)),
            held: RwLock::default(),
            revocations: RwLock::default(),
            known_rights: Mutex::default(),
            verified: Mutex::new(Verified::new(config.verified_max)),
            config,
        })
    }

    /// Marks principals with those of these roles that they have; see [`Principal::marks`]. Roles beyond
    /// [`MARKS_MAX`] are ignored.
    #[must_use]
    pub fn marking(mut self, roles: impl IntoIterator<Item = String>) -> Self {
        self.marking = roles.into_iter().take(MARKS_MAX).collect();
        self.certificates = Certificates::of(&self.config.certificates, &self.roles, &self.marking);
        self
    }

    /// The settings.
    pub fn config(&self) -> &AuthConfig {
        &self.config
    }

    /// Whether authentication is on.
    pub fn is_on(&self) -> bool {
        self.config.is_on()
    }

    /// Whether some actions are permitted without a credential.
    pub fn is_optional(&self) -> bool {
        !self.config.anonymous.is_empty()
    }

    /// The principal of clients without a credential; with authentication off, of all clients.
    pub fn nobody(&self) -> Arc<Principal> {
        if self.is_on() { Arc::clone(&self.anonymous) } else { Principal::unchecked() }
    }

    /// The rights of a role; `None` if there is no such role.
    pub fn role(&self, name: &str) -> Option<&[Right]> {
        self.roles.get(name).map(Vec::as_slice)
    }

    // Authentication

    /// The principal of a token or an API key.
    ///
    /// # Errors
    /// The credential is invalid; see [`Refused`].
    pub fn authenticate(&self, shown: &str) -> Result<Arc<Principal>, Refused> {
        let now = now();
        let principal = if shown.starts_with(KEY_PREFIX) {
            let found = self.api_keys.read().find(shown);
            found.filter(|principal| !principal.has_expired(now)).ok_or(Refused::UnknownApiKey)?
        } else {
            self.of_token(shown, now)?
        };
        if self.revocations.read().hold(&principal) { Err(Refused::Revoked) } else { Ok(principal) }
    }

    /// The principal of a verified certificate, if one of its names is listed. If several are, the first
    /// entry in the settings counts.
    pub fn certified(&self, certificate: &Certificate) -> Option<Principal> {
        self.certificates.find(certificate)
    }

    /// Whether a client that showed a certificate when it connected may still be served.
    ///
    /// # Errors
    /// The certificate is no longer valid.
    pub fn still_certified(&self, principal: &Principal) -> Result<(), Refused> {
        if principal.has_expired(now()) {
            return Err(Refused::CertificateExpired);
        }
        match self.standing(principal) {
            Standing::Holds | Standing::Changed(_) => Ok(()),
            Standing::Revoked => Err(Refused::Revoked),
            Standing::KeyWithdrawn => Err(Refused::AuthorityWithdrawn),
        }
    }

    /// The current generation of the authorities that verify certificates.
    pub fn authorities(&self) -> u32 {
        self.certificates.authorities()
    }

    /// Records that an authority was removed: all clients with certificates have to show them again to the
    /// remaining ones. Returns the new generation.
    pub fn withdraw_authorities(&self) -> u32 {
        self.certificates.withdraw_authorities()
    }

    /// Whether a subject has an API key or a certificate, which may be valid for longer than any token.
    pub fn outlives_tokens(&self, subject: &str) -> bool {
        self.certificates.has_subject(subject) || self.api_keys.read().has_subject(subject)
    }

    /// The principal of a token. If the token was verified before, only what time and new keys can change
    /// is checked.
    fn of_token(&self, token: &str, now: i64) -> Result<Arc<Principal>, Refused> {
        if token.len() > TOKEN_LEN_MAX {
            return Err(Refused::TooLong);
        }
        if self.config.verified_max == 0 {
            return Ok(Arc::new(self.verify(token, now)?));
        }
        let digest = digest(token);
        let known = self.verified.lock().get(&digest);
        if let Some(known) = known {
            let leeway = i64::try_from(self.config.leeway_s).unwrap_or(i64::MAX);
            let has_time = !known.has_expired(now.saturating_sub(leeway));
            let SignedWith { issuer, key } = known.key();
            let of_issuer = self.issuers.get(usize::from(issuer));
            let is_held =
                of_issuer.is_some_and(|issuer| issuer.keys.read().iter().any(|held| held.number == key));
            if has_time && is_held {
                return Ok(known);
            }
            self.verified.lock().remove(&digest);
        }
        let principal = Arc::new(self.verify(token, now)?);
        self.verified.lock().add(digest, Arc::clone(&principal));
        Ok(principal)
    }

    fn verify(&self, token: &str, now: i64) -> Result<Principal, Refused> {
        let header = jsonwebtoken::decode_header(token).map_err(|_error| Refused::Malformed)?;
        // The unverified issuer selects the keys; verifying the signature with them then proves it.
        let Said { iss } =
            jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_error| Refused::Claims)?;
        let issuer = self
            .issuers
            .iter()
            .position(|issuer| issuer.config.issuer == iss)
            .ok_or(Refused::UnknownIssuer)?;
        let of_issuer = &self.issuers[issuer];
        let keys = Arc::clone(&of_issuer.keys.read());
        let name = header.kid.as_deref();
        if keys.is_empty() {
            return Err(self.wanted(issuer, None, now).unwrap_or(Refused::UnknownKey));
        }
        let of_algorithm = || keys.iter().filter(|key| key.algorithm == header.alg);
        if of_algorithm().next().is_none() {
            // The key may be new, with an algorithm that the issuer did not use so far. Secrets are never
            // published, so they are not fetched.
            let may_be_new = PUBLIC.contains(&header.alg)
                && name.is_some_and(|name| keys.iter().all(|key| key.id.as_deref() != Some(name)));
            let awaited = if may_be_new { self.wanted(issuer, name, now) } else { None };
            return Err(awaited.unwrap_or(Refused::Algorithm));
        }
        // If key or token has no name (`kid`), the key may be the right one; if the names differ, it is not.
        let is_named = |key: &&Key| match (key.id.as_deref(), name) {
            (Some(of_key), Some(said)) => of_key == said,
            _ => true,
        };
        let mut refused = Refused::UnknownKey;
        for key in of_algorithm().filter(is_named) {
            match of_issuer.verify(token, key) {
                Ok(claims) => {
                    let signed_with = SignedWith { issuer: place_of(issuer), key: key.number };
                    return Ok(self.principal(of_issuer, &claims, now)?.signed_with(signed_with));
                }
                // Another key may match.
                Err(Refused::Signature) => refused = Refused::Signature,
                Err(other) => return Err(other),
            }
        }
        if refused == Refused::UnknownKey
            && let Some(awaited) = self.wanted(issuer, name, now)
        {
            return Err(awaited);
        }
        Err(refused)
    }

    /// Schedules a read of an issuer's sources, because a token names a key that they do not have. `None` if
    /// they have been read since the key was first named.
    fn wanted(&self, issuer: usize, name: Option<&str>, now: i64) -> Option<Refused> {
        let after_s = self.sources.lock().want(issuer, name, now)?;
        Some(Refused::KeysAwaited { after_s })
    }

    fn principal(&self, issuer: &Issuer, claims: &Value, now: i64) -> Result<Principal, Refused> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let subject = text("sub").filter(|subject| is_subject(subject)).ok_or(Refused::Claims)?;
        let leeway = i64::try_from(self.config.leeway_s).unwrap_or(i64::MAX);
        let lifetime = i64::try_from(self.config.lifetime_max_s).unwrap_or(i64::MAX);
        let expires_at = seconds(claims, "exp")?.ok_or(Refused::Claims)?;
        if expires_at > now.saturating_add(lifetime).saturating_add(leeway) {
            return Err(Refused::Lifetime);
        }
        let issued_at = seconds(claims, "iat")?;
        if issued_at.is_some_and(|at| at > now.saturating_add(leeway)) {
            return Err(Refused::NotYet);
        }
        let token_id = match claims.get("jti") {
            None | Some(Value::Null) => None,
            Some(Value::String(id)) if (1..=TOKEN_ID_LEN_MAX).contains(&id.len()) => Some(id.as_str()),
            Some(_) => return Err(Refused::Claims),
        };
        let issuer = &issuer.config;
        let tenant = match &issuer.tenant {
            Some(tenant) => Some(tenant.as_str()),
            None => match claim(claims, &issuer.tenant_claim) {
                None | Some(Value::Null) => None,
                Some(Value::String(tenant)) if is_subject(tenant) => Some(tenant.as_str()),
                // An unreadable tenant must not count as none, because a principal without a tenant has
                // wider rights.
                Some(_) => return Err(Refused::Claims),
            },
        };
        let roles = words(claim(claims, &issuer.roles_claim));
        let own = words(claim(claims, &issuer.rights_claim));
        let principal = Principal::new(
            &Shown {
                kind: Kind::Token,
                issuer: &issuer.issuer,
                tenant,
                subject,
                credential: token_id,
                issued_at,
                expires_at: Some(expires_at),
            },
            granted(&self.roles, &roles, &own),
        );
        Ok(principal.marked(marks(&self.marking, &roles)).with_rights(|rights| self.shared(rights)))
    }

    /// Deduplicates equal sets of rights: many principals have those of one role.
    fn shared(&self, rights: Arc<Rights>) -> Arc<Rights> {
        let mut known = self.known_rights.lock();
        if let Some(known) = known.get(&rights) {
            return Arc::clone(known);
        }
        if known.len() >= KNOWN_RIGHTS_MAX {
            known.clear();
        }
        known.insert(Arc::clone(&rights));
        rights
    }

    /// What has changed for an authenticated principal since it was admitted.
    pub fn standing(&self, principal: &Principal) -> Standing {
        if self.revocations.read().hold(principal) {
            return Standing::Revoked;
        }
        match principal.kind() {
            Kind::Unchecked | Kind::Anonymous => return Standing::Holds,
            Kind::Token if self.held.read().contains(&principal.key()) => return Standing::Holds,
            Kind::Token => return Standing::KeyWithdrawn,
            Kind::Certificate if self.certificates.holds(principal) => return Standing::Holds,
            Kind::Certificate => return Standing::KeyWithdrawn,
            Kind::Key => {}
        }
        match self.api_keys.read().of_credential(principal.credential()) {
            None => Standing::Revoked,
            Some(now) if **now == *principal => Standing::Holds,
            // The file now lists another subject, or another tenant, under the key's name.
            Some(now) if !now.is_same_as(principal) => Standing::Revoked,
            Some(now) => Standing::Changed(Arc::clone(now)),
        }
    }

    // Sources of keys

    /// The sources that should be read now. Each counts as read from now on; the caller passes the outcome
    /// to [`given`](Self::given).
    pub fn due(&self, now: i64) -> Vec<Due> {
        let mut sources = self.sources.lock();
        let due = sources.begin_due(now).into_iter();
        due.map(|index| Due { index, place: sources.list[index].place.clone() }).collect()
    }

    /// Takes the outcome of reading a source: its text, and for how many seconds that may be cached if the
    /// answer says so; or why there is none.
    pub fn given(&self, due: &Due, read: Result<(String, Option<i64>), String>, now: i64) -> Given {
        let sources = &mut self.sources.lock().list;
        let (contents, held) = match sources.get(due.index) {
            Some(source) => (source.contents, source.text.clone()),
            None => return Given::Same,
        };
        let parsed = read.and_then(|(text, max_age)| {
            let is_same = held.as_deref() == Some(text.as_str());
            let changed = if is_same { None } else { Some(self.parse(contents, &text)?) };
            Ok((text, max_age, changed))
        });
        let source = &mut sources[due.index];
        match parsed {
            Ok((text, max_age, changed)) => {
                source.succeeded(text.into(), max_age, now);
                let mut has_changed = changed.is_some();
                match changed {
                    Some(Text::Keys(keys)) => source.take_keys(keys, now),
                    Some(Text::ApiKeys(keys)) => *self.api_keys.write() = keys,
                    None => {}
                }
                has_changed |= source.forget_gone(now);
                if !has_changed {
                    return Given::Same;
                }
                self.take_over(contents, sources);
                Given::News
            }
            Err(problem) => {
                let is_news = source.failed(problem.clone(), now);
                Given::Problem { problem, is_news }
            }
        }
    }

    fn parse(&self, contents: Contents, text: &str) -> Result<Text, String> {
        match contents {
            Contents::Public(_) => read_public(text).map(Text::Keys).map_err(|error| error.to_string()),
            Contents::Secret(_) => {
                read_secret(text).map(|key| Text::Keys(vec![key])).map_err(|error| error.to_string())
            }
            Contents::ApiKeys => {
                let file = ApiKeyFile::read(text)?;
                let unknown =
                    file.keys.iter().flat_map(|key| &key.roles).find(|role| self.role(role).is_none());
                match unknown {
                    Some(role) => Err(format!("there is no role {role:?}: see auth.roles")),
                    None => Ok(Text::ApiKeys(ApiKeys::of(&file, &self.roles, &self.marking))),
                }
            }
        }
    }

    /// Puts the keys that an issuer's sources have into effect.
    fn take_over(&self, contents: Contents, sources: &[Source]) {
        let Some(issuer) = contents.issuer() else { return };
        let of_issuer = sources.iter().filter(|source| source.contents.issuer() == Some(issuer));
        let keys: Vec<Key> = of_issuer.flat_map(|source| source.keys.iter().cloned()).collect();
        *self.issuers[issuer].keys.write() = keys.into();
        let held = sources.iter().filter_map(|source| Some((place_of(source.contents.issuer()?), source)));
        let held = held.flat_map(|(issuer, source)| source.held().map(move |key| SignedWith { issuer, key }));
        *self.held.write() = held.collect();
    }

    /// The condition of all sources.
    pub fn sources(&self) -> Vec<SourceHealth> {
        let sources = self.sources.lock();
        let health = sources.list.iter().map(|source| SourceHealth {
            place: source.place.to_string(),
            confirmed_at: source.confirmed_at,
            problem: source.problem.clone(),
        });
        health.collect()
    }

    // Revocations

    /// Records a revocation; returns whether it was new.
    ///
    /// # Errors
    /// There are as many revocations as allowed.
    pub fn revoke(&self, revocation: &Revocation) -> Result<bool, TooManyRevocations> {
        self.revocations.write().add(revocation).ok_or(TooManyRevocations)
    }

    /// Until when a revocation is in effect, in seconds since 1970; `None` if there is none.
    pub fn revoked_until(&self, what: Revoked, name: &str) -> Option<i64> {
        self.revocations.read().until(what, name)
    }

    /// Removes the revocations of credentials that have expired by themselves.
    pub fn forget_revocations(&self, now: i64) {
        self.revocations.write().forget(now);
    }

    /// The number of revocations in effect.
    pub fn revocations(&self) -> usize {
        self.revocations.read().len()
    }
}

/// There are [as many revocations as allowed](crate::REVOCATIONS_MAX).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {} revocations already, and no more are remembered", crate::REVOCATIONS_MAX)]
pub struct TooManyRevocations;

const ALGORITHMS: [Algorithm; 4] = [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// The algorithms whose keys issuers publish.
const PUBLIC: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

fn validation(algorithm: Algorithm, issuer: &str, audience: &[String], leeway: u64) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[issuer]);
    validation.set_audience(audience);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.validate_nbf = true;
    validation.leeway = leeway;
    validation
}

impl Issuer {
    /// The claims of the token, if `key` verifies it and it is valid.
    fn verify(&self, token: &str, key: &Key) -> Result<Value, Refused> {
        let validation = self.validations.iter().find(|validation| validation.algorithms == [key.algorithm]);
        let validation = validation.ok_or(Refused::Algorithm)?;
        let verified = jsonwebtoken::decode::<Value>(token, &key.key, validation);
        verified.map(|token| token.claims).map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => Refused::Signature,
            ErrorKind::ExpiredSignature => Refused::Expired,
            ErrorKind::ImmatureSignature => Refused::NotYet,
            ErrorKind::InvalidAudience => Refused::Audience,
            ErrorKind::InvalidIssuer => Refused::UnknownIssuer,
            ErrorKind::InvalidAlgorithm => Refused::Algorithm,
            // The header was parsed before, so this is about the claims.
            ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) => {
                Refused::Claims
            }
            _ => Refused::Malformed,
        })
    }
}

/// The index of an issuer in the settings; it fits, because there are at most `SOURCES_MAX` issuers.
fn place_of(issuer: usize) -> u8 {
    u8::try_from(issuer).unwrap_or(u8::MAX)
}

/// The parsed content of a source.
enum Text {
    Keys(Vec<Key>),
    ApiKeys(ApiKeys),
}

/// The issuer that a token names, before anything is verified.
#[derive(Deserialize)]
struct Said {
    iss: String,
}

/// A claim, by its name or by a path with dots.
fn claim<'c>(claims: &'c Value, way: &str) -> Option<&'c Value> {
    claims.get(way).or_else(|| way.split('.').try_fold(claims, |value, name| value.get(name)))
}

/// A list of strings, or one string split at spaces. Anything else counts as empty.
fn words(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(text)) => {
            text.split(' ').filter(|word| !word.is_empty()).take(RIGHTS_MAX).collect()
        }
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).take(RIGHTS_MAX).collect(),
        _ => Vec::new(),
    }
}

/// A time in seconds since 1970 (`NumericDate`, RFC 7519, section 2), rounded down.
fn seconds(claims: &Value, name: &str) -> Result<Option<i64>, Refused> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => {
            let exact = number.as_i64().or_else(|| number.is_u64().then_some(i64::MAX));
            let rough =
                number.as_f64().filter(|number| number.is_finite()).map(|number| number.floor() as i64);
            exact.or(rough).map(Some).ok_or(Refused::Claims)
        }
        Some(_) => Err(Refused::Claims),
    }
}

fn now() -> i64 {
    i64::try_from(jsonwebtoken::get_current_timestamp()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mint::SigningKey;

    const SECRET: &str = "a secret of the tests, long enough to be one";

    fn update(access: &Access, text: &str, now: i64) -> Given {
        let due = access.due(now).remove(0);
        access.given(&due, Ok((text.to_owned(), None)), now)
    }

    #[test]
    fn a_token_that_comes_again_is_known_for_as_long_as_its_time_and_its_key_hold() {
        let issuer = "https://id.example/".to_owned();
        let secret_files = vec!["unread".into()];
        let issuers = vec![IssuerConfig { issuer: issuer.clone(), secret_files, ..IssuerConfig::default() }];
        let access =
            Access::new(AuthConfig { issuers, leeway_s: 5, ..AuthConfig::default() }).expect("settings");
        let begin = now();
        assert_eq!(update(&access, SECRET, begin), Given::News);
        let claims = json!({"iss": issuer, "aud": "zonewire", "sub": "alice", "exp": begin + 60});
        let key = SigningKey::of_secret(SECRET).expect("a key");
        let token = key.sign(&claims, None).expect("signed");
        let first = access.of_token(&token, begin).expect("it holds");
        let again = access.of_token(&token, begin + 64).expect("it holds within the leeway");
        assert!(Arc::ptr_eq(&first, &again), "it is verified once");
        // A token from the cache is judged by this machine's clock, as when it was verified first.
        let late = access.of_token(&token, begin + 66).expect("by that clock it has not expired");
        assert!(!Arc::ptr_eq(&first, &late), "its time was over, so it was verified anew");

        let mut changed = token.clone().into_bytes();
        let last = changed.len() - 1;
        changed[last] = if changed[last] == b'A' { b'E' } else { b'A' };
        let changed = String::from_utf8(changed).expect("ASCII");
        assert_eq!(access.of_token(&changed, begin).err(), Some(Refused::Signature));

        let other = "another secret of the tests, as long as that";
        assert_eq!(update(&access, other, begin + 3_600), Given::News);
        assert_eq!(access.of_token(&token, begin).err(), Some(Refused::Signature));
    }
}
