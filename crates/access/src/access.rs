//! Everything together: from what somebody shows to who it is.

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
use crate::rights::{RIGHTS_MAX, Right, Rights};
use crate::settings::{AuthConfig, Place, ROLES, Wrong};
use crate::source::{Gives, Source, Sources};
use crate::verified::{Verified, digest};

/// The longest token, in bytes.
pub const TOKEN_LEN_MAX: usize = 8 << 10;

/// The most roles that can be told of by [`Access::marking`].
pub const MARKS_MAX: usize = 16;

/// Sets of rights that are remembered, so that they are in memory once.
const KNOWN_RIGHTS_MAX: usize = 4_096;

/// The longest `jti`, in bytes.
const TOKEN_ID_LEN_MAX: usize = 256;

/// Who may come in, and as whom. Everything here is in memory, and answered at once.
pub struct Access {
    config: AuthConfig,
    issuers: Vec<Issuer>,
    roles: BTreeMap<String, Vec<Right>>,
    /// Roles that somebody wants to be told of, by place.
    marking: Vec<String>,
    api_keys: RwLock<ApiKeys>,
    certificates: Certificates,
    anonymous: Arc<Principal>,
    sources: Mutex<Sources>,
    /// Keys with which tokens may be signed of those who are in.
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
    name: String,
    roles_claim: String,
    rights_claim: String,
    tenant_claim: String,
    tenant: Option<String>,
    /// One for each algorithm.
    validations: Vec<Validation>,
    keys: RwLock<Arc<[Key]>>,
}

/// Why what was shown does not hold. Holds nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It is neither a token nor a key.
    #[error("this is neither a JSON Web Token (RFC 7519) nor an API key of this gateway")]
    Malformed,
    /// It is too long.
    #[error("the token is longer than {TOKEN_LEN_MAX} bytes")]
    TooLong,
    /// Nobody known has issued it.
    #[error("the gateway does not know who issued the token (`iss`)")]
    UnknownIssuer,
    /// It is signed in a way that none of its issuer's keys can verify.
    #[error("the token is not signed in the way of its issuer (`alg`)")]
    Algorithm,
    /// It names a key that its issuer does not have.
    #[error("the gateway does not know the key that the token is signed with (`kid`)")]
    UnknownKey,
    /// It names a key that is not known yet, or no key of its issuer is: they are being fetched. The same
    /// may hold then.
    #[error(
        "the gateway does not know the key that the token is signed with yet, and fetches keys of its issuer: \
         come again with the same token"
    )]
    KeysAwaited {
        /// When it is worth it, in seconds: 1 to 61.
        after_s: u32,
    },
    /// It is not its issuer's.
    #[error("the signature of the token is not right")]
    Signature,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time is yet to come.
    #[error("the token is not valid yet (`nbf`, `iat`)")]
    NotYet,
    /// It is valid for longer than may be.
    #[error("the token is valid for longer than this gateway takes (`exp`, auth.lifetime_max_s)")]
    Lifetime,
    /// It is for somebody else.
    #[error("the token is not for this gateway (`aud`)")]
    Audience,
    /// A claim is missing, or of the wrong form.
    #[error("the token must have `iss`, `aud`, `exp` and `sub`, of the form that RFC 7519 gives them")]
    Claims,
    /// It was revoked.
    #[error("the token, the API key or the certificate was revoked")]
    Revoked,
    /// There is no such API key.
    #[error("there is no such API key, or it is no longer valid")]
    UnknownApiKey,
    /// The time of a certificate is over.
    #[error("the certificate has expired")]
    CertificateExpired,
    /// A certificate was verified by an authority that may be none any more.
    #[error("the gateway's authorities have changed since the certificate was shown: connect anew")]
    AuthorityWithdrawn,
}

impl Refused {
    /// All there are.
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

    /// A word for counters.
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

    /// In how many seconds the same may hold, when keys have been fetched.
    pub const fn after_s(self) -> Option<u32> {
        match self {
            Self::KeysAwaited { after_s } => Some(after_s),
            _ => None,
        }
    }
}

/// What has become of somebody who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Holds,
    /// It has other rights now.
    Changed(Arc<Principal>),
    /// It is no longer valid.
    Revoked,
    /// The key that it is signed with is no longer its issuer's; another token may hold.
    KeyWithdrawn,
}

/// A place that is to be asked now.
#[derive(Debug, Clone)]
pub struct Due {
    index: usize,
    /// Which one.
    pub place: Place,
}

/// What came of asking a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// It gave the same as before.
    Same,
    /// It gave something else, which holds from now on. Whoever was let in is to be looked at again.
    News,
    /// It did not give what can be used; what it gave before goes on. `is_news` where it did so before
    /// that, or in another way.
    Problem {
        /// What is wrong; in words, and without anything of what was given.
        problem: String,
        /// Whether it is not the same as the last time.
        is_news: bool,
    },
}

/// How a place does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceHealth {
    /// Which one.
    pub place: String,
    /// When it last gave what can be used, in seconds since 1970.
    pub confirmed_at: Option<i64>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// Which of the roles to tell of are among these, by bit.
pub(crate) fn marks<'a>(marking: &[String], roles: impl Iterator<Item = &'a str> + Clone) -> u16 {
    let has = |wanted: &String| roles.clone().any(|role| role == wanted);
    marking.iter().enumerate().fold(0, |marks, (place, wanted)| marks | (u16::from(has(wanted)) << place))
}

impl Access {
    /// From settings that hold up. No place has been asked yet: see [`due`](Self::due).
    ///
    /// # Errors
    /// What does not hold up.
    pub fn new(config: AuthConfig) -> Result<Self, Vec<Wrong>> {
        install();
        let wrong = config.check();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let parsed =
            |rights: &[String]| -> Vec<Right> { rights.iter().filter_map(|r| r.parse().ok()).collect() };
        let mut roles: BTreeMap<String, Vec<Right>> = BTreeMap::new();
        for (name, rights) in ROLES {
            roles.insert(name.to_owned(), rights.iter().filter_map(|right| right.parse().ok()).collect());
        }
        for (name, rights) in &config.roles {
            roles.insert(name.clone(), parsed(rights));
        }
        let mut sources = Vec::new();
        for (index, issuer) in config.issuers.iter().enumerate() {
            for place in &issuer.keys {
                let place = Place::of(place).map_err(|problem| vec![("issuers".to_owned(), problem)])?;
                sources.push(Source::new(Gives::Public(index), place));
            }
            let secrets = issuer.secret_files.iter().cloned().map(Place::File);
            sources.extend(secrets.map(|place| Source::new(Gives::Secret(index), place)));
        }
        sources.extend(config.keys_file.clone().map(|file| Source::new(Gives::ApiKeys, Place::File(file))));
        let issuers = config.issuers.iter().map(|issuer| Issuer {
            name: issuer.issuer.clone(),
            roles_claim: issuer.roles_claim.clone(),
            rights_claim: issuer.rights_claim.clone(),
            tenant_claim: issuer.tenant_claim.clone(),
            tenant: issuer.tenant.clone(),
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

    /// The same, and principals say which of these roles they have ([`Principal::marks`]). Those beyond
    /// [`MARKS_MAX`] are left out.
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

    /// Whether anybody is asked who they are.
    pub fn is_on(&self) -> bool {
        self.config.is_on()
    }

    /// Whether there is something that may be done without showing anything.
    pub fn is_optional(&self) -> bool {
        !self.config.anonymous.is_empty()
    }

    /// Who has shown nothing; or everybody, where nobody is asked.
    pub fn nobody(&self) -> Arc<Principal> {
        if self.is_on() { Arc::clone(&self.anonymous) } else { Principal::unchecked() }
    }

    /// What a role stands for; `None` where there is none of this name.
    pub fn role(&self, name: &str) -> Option<&[Right]> {
        self.roles.get(name).map(Vec::as_slice)
    }

    // Who it is

    /// Who shows a token or a key.
    ///
    /// # Errors
    /// It does not hold; see [`Refused`].
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

    /// Whose a certificate is that was verified, if one of its names is listed. Which entry of the settings
    /// comes first counts.
    pub fn certified(&self, certificate: &Certificate) -> Option<Principal> {
        self.certificates.find(certificate)
    }

    /// Whether somebody who has shown a certificate at the beginning of a connection may still come in.
    ///
    /// # Errors
    /// It holds no more.
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

    /// Which authorities certificates are verified by now, by a number.
    pub fn authorities(&self) -> u32 {
        self.certificates.authorities()
    }

    /// One of the authorities is none any more. Whoever came with a certificate is to show it anew, to those
    /// that there are from here on; the number that they have.
    pub fn withdraw_authorities(&self) -> u32 {
        self.certificates.withdraw_authorities()
    }

    /// Whether there is an API key or a certificate of a subject: these may be valid for longer than any token.
    pub fn outlives_tokens(&self, subject: &str) -> bool {
        self.certificates.has_subject(subject) || self.api_keys.read().has_subject(subject)
    }

    /// Who shows a token. Of one that was verified before it is looked at what time and new keys can change.
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
        // Whose keys are to be used. Whether it is true shows when they are.
        let Said { iss } =
            jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_error| Refused::Claims)?;
        let issuer =
            self.issuers.iter().position(|issuer| issuer.name == iss).ok_or(Refused::UnknownIssuer)?;
        let of_issuer = &self.issuers[issuer];
        let keys = Arc::clone(&of_issuer.keys.read());
        let name = header.kid.as_deref();
        if keys.is_empty() {
            return Err(self.wanted(issuer, None, now).unwrap_or(Refused::UnknownKey));
        }
        let of_algorithm = || keys.iter().filter(|key| key.algorithm == header.alg);
        if of_algorithm().next().is_none() {
            // Perhaps of a key that is new, and of another kind. Nobody publishes secrets.
            let may_be_new = PUBLIC.contains(&header.alg)
                && name.is_some_and(|name| keys.iter().all(|key| key.id.as_deref() != Some(name)));
            let awaited = if may_be_new { self.wanted(issuer, name, now) } else { None };
            return Err(awaited.unwrap_or(Refused::Algorithm));
        }
        // A key without a name may be any; one with another name is another one.
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
                // Another key may fit.
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

    /// Has keys of an issuer asked for, because a token names one that is not known.
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
        let tenant = match &issuer.tenant {
            Some(tenant) => Some(tenant.as_str()),
            None => match claim(claims, &issuer.tenant_claim) {
                None | Some(Value::Null) => None,
                Some(Value::String(tenant)) if is_subject(tenant) => Some(tenant.as_str()),
                // One that cannot be read is not the same as none, which would reach further.
                Some(_) => return Err(Refused::Claims),
            },
        };
        let roles = words(claim(claims, &issuer.roles_claim));
        let marks = marks(&self.marking, roles.iter().copied());
        let of_roles = roles.into_iter().filter_map(|role| self.roles.get(role)).flatten();
        let own = words(claim(claims, &issuer.rights_claim));
        let own: Vec<Right> = own.into_iter().filter_map(|right| right.parse().ok()).collect();
        let principal = Principal::new(
            &Shown {
                kind: Kind::Token,
                issuer: &issuer.name,
                tenant,
                subject,
                credential: token_id,
                issued_at,
                expires_at: Some(expires_at),
            },
            of_roles.chain(&own),
        );
        Ok(principal.marked(marks).with_rights(|rights| self.shared(rights)))
    }

    /// The same rights in memory once: many principals have those of a role.
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

    /// What has become of somebody who was let in.
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
            // The name went to somebody else.
            Some(now) if !now.is_same_as(principal) => Standing::Revoked,
            Some(now) => Standing::Changed(Arc::clone(now)),
        }
    }

    // Where keys come from

    /// The places that are to be asked now. Each counts as asked then, and what came of it is
    /// [`given`](Self::given) back.
    pub fn due(&self, now: i64) -> Vec<Due> {
        let mut sources = self.sources.lock();
        let due = sources.begin_due(now).into_iter();
        due.map(|index| Due { index, place: sources.list[index].place.clone() }).collect()
    }

    /// Takes what a place gave: its text, and for how many seconds it may be kept, if it says so; or why it
    /// gave none.
    pub fn given(&self, due: &Due, gave: Result<(String, Option<i64>), String>, now: i64) -> Given {
        let sources = &mut self.sources.lock().list;
        let (gives, held) = match sources.get(due.index) {
            Some(source) => (source.gives, source.text.clone()),
            None => return Given::Same,
        };
        let taken = gave.and_then(|(text, max_age)| {
            let is_same = held.as_deref() == Some(text.as_str());
            let news = if is_same { None } else { Some(self.read(gives, &text)?) };
            Ok((text, max_age, news))
        });
        let source = &mut sources[due.index];
        match taken {
            Ok((text, max_age, news)) => {
                source.succeeded(text.into(), max_age, now);
                let mut is_news = news.is_some();
                match news {
                    Some(Text::Keys(keys)) => source.take_keys(keys, now),
                    Some(Text::ApiKeys(keys)) => *self.api_keys.write() = keys,
                    None => {}
                }
                is_news |= source.forget_gone(now);
                if !is_news {
                    return Given::Same;
                }
                self.take_over(gives, sources);
                Given::News
            }
            Err(problem) => {
                let is_news = source.failed(problem.clone(), now);
                Given::Problem { problem, is_news }
            }
        }
    }

    fn read(&self, gives: Gives, text: &str) -> Result<Text, String> {
        match gives {
            Gives::Public(_) => read_public(text).map(Text::Keys).map_err(|error| error.to_string()),
            Gives::Secret(_) => {
                read_secret(text).map(|key| Text::Keys(vec![key])).map_err(|error| error.to_string())
            }
            Gives::ApiKeys => {
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

    /// Has the keys of an issuer hold from now on that the sources have.
    fn take_over(&self, gives: Gives, sources: &[Source]) {
        let Some(issuer) = gives.issuer() else { return };
        let of_issuer = sources.iter().filter(|source| source.gives.issuer() == Some(issuer));
        let keys: Vec<Key> = of_issuer.flat_map(|source| source.keys.iter().cloned()).collect();
        *self.issuers[issuer].keys.write() = keys.into();
        let held = sources.iter().filter_map(|source| Some((place_of(source.gives.issuer()?), source)));
        let held = held.flat_map(|(issuer, source)| source.held().map(move |key| SignedWith { issuer, key }));
        *self.held.write() = held.collect();
    }

    /// How all places do.
    pub fn sources(&self) -> Vec<SourceHealth> {
        let sources = self.sources.lock();
        let health = sources.list.iter().map(|source| SourceHealth {
            place: source.place.to_string(),
            confirmed_at: source.confirmed_at,
            problem: source.problem.clone(),
        });
        health.collect()
    }

    // What is no longer valid

    /// Remembers a revocation; says whether it was news.
    ///
    /// # Errors
    /// There are as many as may be.
    pub fn revoke(&self, revocation: &Revocation) -> Result<bool, TooManyRevocations> {
        self.revocations.write().add(revocation).ok_or(TooManyRevocations)
    }

    /// Until when a revocation is remembered, in seconds since 1970; `None` where there is none.
    pub fn revoked_until(&self, what: Revoked, name: &str) -> Option<i64> {
        self.revocations.read().until(what, name)
    }

    /// Forgets those of what has expired by itself.
    pub fn forget_revocations(&self, now: i64) {
        self.revocations.write().forget(now);
    }

    /// How many are known.
    pub fn revocations(&self) -> usize {
        self.revocations.read().len()
    }
}

/// There are [as many revocations as may be](crate::REVOCATIONS_MAX).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {} revocations already, and no more are remembered", crate::REVOCATIONS_MAX)]
pub struct TooManyRevocations;

const ALGORITHMS: [Algorithm; 4] = [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// Those of keys that are published.
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
    /// The claims, if the token is signed with a key, and valid.
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
            // The header has been read before.
            ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) => {
                Refused::Claims
            }
            _ => Refused::Malformed,
        })
    }
}

/// The place of an issuer in the settings, of which there are few.
fn place_of(issuer: usize) -> u8 {
    u8::try_from(issuer).unwrap_or(u8::MAX)
}

/// What was read at a place.
enum Text {
    Keys(Vec<Key>),
    ApiKeys(ApiKeys),
}

/// What a token says of its issuer, before anything is verified.
#[derive(Deserialize)]
struct Said {
    iss: String,
}

/// A claim, by its name or by a way with dots.
fn claim<'c>(claims: &'c Value, way: &str) -> Option<&'c Value> {
    claims.get(way).or_else(|| way.split('.').try_fold(claims, |value, name| value.get(name)))
}

/// A list of texts, or a text with spaces. Anything else is none.
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
    use crate::settings::IssuerConfig;

    const SECRET: &str = "a secret of the tests, long enough to be one";

    fn gives(access: &Access, text: &str, now: i64) -> Given {
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
        assert_eq!(gives(&access, SECRET, begin), Given::News);
        let claims = json!({"iss": issuer, "aud": "zonewire", "sub": "alice", "exp": begin + 60});
        let key = SigningKey::of_secret(SECRET).expect("a key");
        let token = key.sign(&claims, None).expect("signed");
        let first = access.of_token(&token, begin).expect("it holds");
        let again = access.of_token(&token, begin + 64).expect("it holds within the leeway");
        assert!(Arc::ptr_eq(&first, &again), "it is verified once");
        // What is looked at again says the same as at first, by the clock of this machine.
        let late = access.of_token(&token, begin + 66).expect("by that clock it has not expired");
        assert!(!Arc::ptr_eq(&first, &late), "its time was over, so it was verified anew");

        let mut changed = token.clone().into_bytes();
        let last = changed.len() - 1;
        changed[last] = if changed[last] == b'A' { b'E' } else { b'A' };
        let changed = String::from_utf8(changed).expect("ASCII");
        assert_eq!(access.of_token(&changed, begin).err(), Some(Refused::Signature));

        let other = "another secret of the tests, as long as that";
        assert_eq!(gives(&access, other, begin + 3_600), Given::News);
        assert_eq!(access.of_token(&token, begin).err(), Some(Refused::Signature));
    }
}
