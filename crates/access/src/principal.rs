//! Principals, and the one question that every entrance asks: [`may`].

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use uuid::{Uuid, Variant};

use crate::crypto::short_hash;
use crate::keys::KeyNumber;
use crate::rights::{Action, ORDER, Right, Rights};

/// An authenticated client, or an anonymous one. Small, because each connection has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    kind: Kind,
    /// The issuer and the key that signed the token; for a certificate, the key stands for the generation
    /// of the authorities that verified it.
    issuer: u8,
    key: KeyNumber,
    /// Which of the tracked roles it has, by bit.
    marks: u16,
    subject: Box<str>,
    owner: Owner,
    /// A digest of the tenant's name; 0 without a tenant.
    tenant: u64,
    rights: Arc<Rights>,
    /// A digest of the token's `jti`, or of the API key's name. 0 without one.
    credential: u64,
    /// In seconds since 1970; the minimum if unknown.
    issued_at: i64,
    /// The first second in which it is no longer valid; the maximum if it does not expire.
    expires_at: i64,
}

/// The kind of credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// None is needed: authentication is off.
    Unchecked,
    /// None.
    Anonymous,
    /// A token.
    Token,
    /// An API key.
    Key,
    /// A certificate, in the handshake of TLS.
    Certificate,
}

/// A key of an issuer; `issuer` is the index in the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SignedWith {
    pub(crate) issuer: u8,
    pub(crate) key: KeyNumber,
}

/// What a principal is built from.
#[derive(Debug)]
pub(crate) struct Shown<'a> {
    pub(crate) kind: Kind,
    /// The issuer that vouches for the subject.
    pub(crate) issuer: &'a str,
    pub(crate) tenant: Option<&'a str>,
    pub(crate) subject: &'a str,
    /// The `jti`, or the name of the API key.
    pub(crate) credential: Option<&'a str>,
    pub(crate) issued_at: Option<i64>,
    pub(crate) expires_at: Option<i64>,
}

impl Principal {
    /// The principal of all clients if authentication is off. May do everything, and owns nothing.
    pub fn unchecked() -> Arc<Self> {
        static UNCHECKED: OnceLock<Arc<Principal>> = OnceLock::new();
        Arc::clone(UNCHECKED.get_or_init(|| Arc::new(Self::nobody(Kind::Unchecked, Rights::default()))))
    }

    /// The principal of clients without a credential.
    pub(crate) fn anonymous(rights: Rights) -> Self {
        Self::nobody(Kind::Anonymous, rights)
    }

    fn nobody(kind: Kind, rights: Rights) -> Self {
        Self {
            kind,
            issuer: 0,
            key: KeyNumber::NONE,
            marks: 0,
            subject: Box::from(""),
            owner: Owner(0),
            tenant: 0,
            rights: Arc::new(rights),
            credential: 0,
            issued_at: i64::MIN,
            expires_at: i64::MAX,
        }
    }

    pub(crate) fn new<'r>(shown: &Shown<'_>, rights: impl IntoIterator<Item = Cow<'r, Right>>) -> Self {
        let rights = rights.into_iter().filter_map(|right| right.of(shown.subject, shown.tenant));
        Self {
            subject: shown.subject.into(),
            owner: Owner::of(shown.issuer, shown.tenant, shown.subject),
            tenant: shown.tenant.map_or(0, tenant_hash),
            credential: shown.credential.map_or(0, credential_hash),
            issued_at: shown.issued_at.unwrap_or(i64::MIN),
            expires_at: shown.expires_at.unwrap_or(i64::MAX),
            ..Self::nobody(shown.kind, Rights::new(rights))
        }
    }

    /// The same, marked with tracked roles.
    pub(crate) fn marked(self, marks: u16) -> Self {
        Self { marks, ..self }
    }

    pub(crate) fn signed_with(self, SignedWith { issuer, key }: SignedWith) -> Self {
        Self { issuer, key, ..self }
    }

    /// The same, issued at one time, and no longer valid from another on.
    pub(crate) fn valid(self, issued_at: i64, expires_at: i64) -> Self {
        Self { issued_at, expires_at, ..self }
    }

    /// The key that signed its token, or stands for its certificate's authorities.
    pub(crate) fn key(&self) -> SignedWith {
        SignedWith { issuer: self.issuer, key: self.key }
    }

    pub(crate) fn with_rights(mut self, change: impl FnOnce(Arc<Rights>) -> Arc<Rights>) -> Self {
        self.rights = change(self.rights);
        self
    }

    /// The kind of credential.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it has a valid credential.
    pub fn is_authenticated(&self) -> bool {
        matches!(self.kind, Kind::Token | Kind::Key | Kind::Certificate)
    }

    /// Its name, as its issuer knows it; `None` without a credential.
    pub fn subject(&self) -> Option<&str> {
        self.is_authenticated().then_some(&*self.subject)
    }

    /// The owner of the orders that it places; `None` if they belong to nobody.
    pub fn owner(&self) -> Option<Owner> {
        self.is_authenticated().then_some(self.owner)
    }

    /// The account that limits are counted on: its subject within its issuer and tenant, or, for an API
    /// key, the key. `None` without a credential.
    pub fn account(&self) -> Option<u64> {
        match self.kind {
            Kind::Unchecked | Kind::Anonymous => None,
            Kind::Token | Kind::Certificate => Some(self.owner.0),
            Kind::Key => Some(self.credential),
        }
    }

    /// The account of its tenant. As in rights, a tenant is known by its name alone, whichever issuer uses
    /// it.
    pub fn tenant(&self) -> Option<u64> {
        (self.tenant != 0).then_some(self.tenant)
    }

    /// Which of the roles in [`Access::marking`](crate::Access::marking) it has: the bit of each is its
    /// index there.
    pub fn marks(&self) -> u16 {
        self.marks
    }

    /// Its rights.
    pub fn rights(&self) -> &Rights {
        &self.rights
    }

    /// When it expires, in seconds since 1970; `None` if it does not.
    pub fn expires_at(&self) -> Option<i64> {
        (self.expires_at < i64::MAX).then_some(self.expires_at)
    }

    /// Whether it has expired at a time, in seconds since 1970.
    pub fn has_expired(&self, now: i64) -> bool {
        now >= self.expires_at
    }

    /// Whether both have the same issuer, tenant and subject.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.is_authenticated() && self.kind == other.kind && self.owner == other.owner
    }

    pub(crate) fn credential(&self) -> u64 {
        self.credential
    }

    /// A digest of the subject, without issuer and tenant.
    pub(crate) fn subject_hash(&self) -> u64 {
        subject_hash(&self.subject)
    }

    pub(crate) fn issued_at(&self) -> i64 {
        self.issued_at
    }
}

/// Never 0.
fn tenant_hash(name: &str) -> u64 {
    short_hash(&[b"tenant", name.as_bytes()]).max(1)
}

pub(crate) fn credential_hash(name: &str) -> u64 {
    short_hash(&[b"credential", name.as_bytes()])
}

pub(crate) fn subject_hash(subject: &str) -> u64 {
    short_hash(&[b"subject", subject.as_bytes()])
}

/// What an action is performed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A channel, by name, such as `zone:pjm`.
    Channel(&'a str),
    /// An order, by id.
    Order(Uuid),
    /// The gateway itself: for actions that concern everybody, and for placing an order, which has no id yet.
    Gateway,
}

/// Why an action is not permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// A credential is required, and none was shown.
    #[error("this requires a token, and none was sent")]
    Unauthenticated,
    /// The principal lacks the right to it.
    #[error("the token gives no right to this")]
    Forbidden,
    /// It belongs to somebody else, and the client must not learn whether it exists.
    #[error("there is no such thing")]
    Unknown,
}

/// Whether a principal may perform an action. Answers from memory.
///
/// # Errors
/// It may not; the error says what the client may know about it.
pub fn may(principal: &Principal, action: Action, resource: Resource<'_>) -> Result<(), Denied> {
    let rights = &*principal.rights;
    if principal.kind == Kind::Unchecked || rights.has(Action::Admin) {
        return Ok(());
    }
    let is_own = |order| principal.is_authenticated() && principal.owner.owns(order);
    let allowed = match (action, resource) {
        (Action::Subscribe | Action::Publish | Action::Registry, Resource::Channel(channel)) => {
            rights.allow(action, channel)
                || (action == Action::Subscribe
                    && rights.has(Action::Order)
                    && order_of(channel).is_some_and(is_own))
        }
        (Action::Order, Resource::Gateway) => principal.is_authenticated() && rights.has(Action::Order),
        (Action::Order, Resource::Order(order)) => rights.has(Action::Order) && is_own(order),
        (Action::Work, Resource::Gateway) => rights.has(Action::Work),
        _ => false,
    };
    if allowed {
        return Ok(());
    }
    let is_of_an_order = match resource {
        Resource::Channel(channel) => channel.starts_with(ORDER),
        Resource::Order(_) => true,
        Resource::Gateway => false,
    };
    Err(match principal.kind {
        Kind::Anonymous => Denied::Unauthenticated,
        // A principal that may have orders must not learn which other orders exist.
        _ if is_of_an_order && rights.has(Action::Order) => Denied::Unknown,
        _ => Denied::Forbidden,
    })
}

fn order_of(channel: &str) -> Option<Uuid> {
    Uuid::try_parse(channel.strip_prefix(ORDER)?).ok()
}

/// The owner of an order. The order's id contains it: 62 bits are a digest of issuer, tenant and subject.
/// So ownership is known wherever the id is known, without asking the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner(u64);

/// The bits of an id that contain the owner: the second half without the variant (RFC 9562).
const OWNER_BITS: u64 = (1 << 62) - 1;

impl Owner {
    fn of(issuer: &str, tenant: Option<&str>, subject: &str) -> Self {
        let has_tenant: &[u8] = if tenant.is_some() { b"1" } else { b"0" };
        let tenant = tenant.unwrap_or_default().as_bytes();
        Self(short_hash(&[b"owner", issuer.as_bytes(), has_tenant, tenant, subject.as_bytes()]) & OWNER_BITS)
    }

    /// Turns a random id into one for an order of this owner: a UUID of version 8 (RFC 9562, section 5.8),
    /// with 60 random bits.
    #[must_use]
    pub fn name(self, random: Uuid) -> Uuid {
        let (high, _) = random.as_u64_pair();
        let high = (high & !0xf000) | 0x8000;
        Uuid::from_u64_pair(high, (0b10 << 62) | self.0)
    }

    /// Whether the order with this id belongs to this owner.
    pub fn owns(self, order: Uuid) -> bool {
        Self::of_order(order) == Some(self)
    }

    /// The owner of an order; `None` if it was placed elsewhere, or while authentication was off.
    pub fn of_order(order: Uuid) -> Option<Self> {
        let is_ours = order.get_version_num() == 8 && order.get_variant() == Variant::RFC4122;
        is_ours.then(|| Self(order.as_u64_pair().1 & OWNER_BITS))
    }
}

/// Sixteen hexadecimal digits, which can be part of a storage key.
impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(issuer: &str, tenant: Option<&str>, subject: &str, rights: &[&str]) -> Principal {
        let shown = Shown {
            kind: Kind::Token,
            issuer,
            tenant,
            subject,
            credential: None,
            issued_at: None,
            expires_at: None,
        };
        let rights: Vec<Right> = rights.iter().map(|right| right.parse().unwrap()).collect();
        Principal::new(&shown, rights.into_iter().map(Cow::Owned))
    }

    #[test]
    fn a_principal_is_small() {
        // With the two counters of its `Arc`, it exactly fills the allocator's size class of 88 bytes.
        assert!(size_of::<Principal>() <= 72);
    }

    #[test]
    fn an_order_is_its_owners_alone() {
        let alice = principal("i", None, "alice", &["order"]);
        let order = alice.owner().unwrap().name(Uuid::new_v4());
        assert_eq!((order.get_version_num(), order.get_variant()), (8, Variant::RFC4122));
        assert_eq!(may(&alice, Action::Order, Resource::Order(order)), Ok(()));
        let channel = format!("order:{order}");
        assert_eq!(may(&alice, Action::Subscribe, Resource::Channel(&channel)), Ok(()));
        for other in [
            principal("i", None, "bob", &["order"]),
            principal("j", None, "alice", &["order"]),
            principal("i", Some(""), "alice", &["order"]),
            principal("i", Some("acme"), "alice", &["order"]),
            principal("i", None, "alice2", &["order"]),
        ] {
            assert_eq!(may(&other, Action::Order, Resource::Order(order)), Err(Denied::Unknown));
            let to = Resource::Channel(&channel);
            assert_eq!(may(&other, Action::Subscribe, to), Err(Denied::Unknown));
        }
        // The answer is the same whether or not the order exists.
        let none = Resource::Order(Uuid::new_v4());
        assert_eq!(may(&alice, Action::Order, none), Err(Denied::Unknown));
        let viewer = principal("i", None, "alice", &["subscribe:zone:*"]);
        assert_eq!(may(&viewer, Action::Order, Resource::Order(order)), Err(Denied::Forbidden));
        // With another version, and with another variant.
        let (high, low) = order.as_u64_pair();
        for elsewhere in [
            Uuid::new_v4(),
            Uuid::from_u64_pair(high, low | (1 << 62)),
            Uuid::from_u64_pair(high ^ 0x1000, low),
        ] {
            assert_eq!(Owner::of_order(elsewhere), None, "{elsewhere}");
        }
        let names: std::collections::HashSet<Uuid> =
            (0..1_000).map(|_| alice.owner().unwrap().name(Uuid::new_v4())).collect();
        assert_eq!(names.len(), 1_000);
    }

    #[test]
    fn limits_count_subjects_within_their_issuer_and_tenant_and_tenants_by_their_name() {
        let alice = principal("i", None, "alice", &[]);
        assert_eq!((alice.account().is_some(), alice.tenant(), alice.marks()), (true, None, 0));
        for other in [
            principal("j", None, "alice", &[]),
            principal("i", Some("acme"), "alice", &[]),
            principal("i", None, "bob", &[]),
        ] {
            assert_ne!(other.account(), alice.account(), "{other:?}");
        }
        let of = |issuer, tenant| principal(issuer, Some(tenant), "alice", &[]).tenant();
        assert_eq!(of("i", "acme"), of("j", "acme"));
        assert_ne!(of("i", "acme"), of("i", "other"));
        assert_eq!(alice.marked(5).marks(), 5);
        let anonymous = Principal::anonymous(Rights::default());
        assert_eq!((anonymous.account(), anonymous.tenant()), (None, None));
        assert_eq!(Principal::unchecked().account(), None);
    }

    #[test]
    fn parts_of_an_owner_do_not_run_into_each_other() {
        let owner = |issuer, tenant, subject| principal(issuer, tenant, subject, &[]).owner();
        assert_ne!(owner("a", Some("b"), "c"), owner("ab", Some(""), "c"));
        assert_ne!(owner("a", Some("b"), "c"), owner("a", Some("bc"), ""));
        assert_ne!(owner("a", None, "c"), owner("a", Some(""), "c"));
    }

    #[test]
    fn each_action_takes_its_own_right() {
        let order = Uuid::new_v4();
        let doors = [
            (Action::Subscribe, Resource::Channel("zone:pjm"), "subscribe:zone:pjm"),
            (Action::Publish, Resource::Channel("zone:pjm"), "publish:zone:p*"),
            (Action::Registry, Resource::Channel("zone:pjm"), "registry:zone:*"),
            (Action::Order, Resource::Gateway, "order"),
            (Action::Work, Resource::Gateway, "work"),
            (Action::Admin, Resource::Gateway, "admin"),
            (Action::Order, Resource::Order(order), "admin"),
        ];
        for (action, resource, right) in doors {
            let holder = principal("i", None, "a", &[right]);
            assert_eq!(may(&holder, action, resource), Ok(()), "{right}");
            let without = doors.iter().map(|(_, _, right)| *right);
            let without: Vec<&str> = without.filter(|other| *other != right && *other != "admin").collect();
            let other = principal("i", None, "a", &without);
            assert!(may(&other, action, resource).is_err(), "{action:?} {resource:?} without {right}");
            let anonymous = Principal::anonymous(Rights::default());
            assert_eq!(may(&anonymous, action, resource), Err(Denied::Unauthenticated));
            assert_eq!(may(&Principal::unchecked(), action, resource), Ok(()));
        }
    }

    #[test]
    fn nobody_who_has_shown_nothing_has_orders() {
        let order: Right = "order".parse().unwrap();
        let anonymous = Principal::anonymous(Rights::new([order]));
        assert_eq!(may(&anonymous, Action::Order, Resource::Gateway), Err(Denied::Unauthenticated));
        let named = Owner(0).name(Uuid::new_v4());
        assert_eq!(may(&anonymous, Action::Order, Resource::Order(named)), Err(Denied::Unauthenticated));
        assert_eq!(anonymous.owner(), None);
    }
}
