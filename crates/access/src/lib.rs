//! Who a client of a Zonewire gateway is, and what it may do.
//!
//! [`Access`] has the settings, the keys and the revocations. [`Access::authenticate`] turns a token (a
//! JSON Web Token, RFC 7519) or an API key into a [`Principal`], [`Access::certified`] does so with a
//! certificate that TLS has verified, and every entrance asks [`may`]. All of that is in memory and takes
//! microseconds: nothing here waits, opens a connection or reads a file. [`Access::due`] says which sources
//! of keys should be read; the caller reads them and passes the outcome to [`Access::given`].
//!
//! ```
//! use zonewire_access::{Access, Action, AuthConfig, Denied, Resource, may};
//!
//! let config = AuthConfig { anonymous: vec!["subscribe:zone:public.*".to_owned()], ..Default::default() };
//! let access = Access::new(AuthConfig { mode: Some(zonewire_access::Mode::On), ..config }).unwrap();
//! let nobody = access.nobody();
//! assert_eq!(may(&nobody, Action::Subscribe, Resource::Channel("zone:public.pjm")), Ok(()));
//! let publish = may(&nobody, Action::Publish, Resource::Channel("zone:public.pjm"));
//! assert_eq!(publish, Err(Denied::Unauthenticated));
//! ```

mod access;
mod api_key;
mod certificate;
mod crypto;
mod keys;
mod mint;
mod principal;
mod revoked;
mod rights;
mod settings;
mod source;
mod verified;

pub use access::{
    Access, Due, Given, MARKS_MAX, Refused, SourceHealth, Standing, TOKEN_LEN_MAX, TooManyRevocations,
};
pub use api_key::{API_KEYS_MAX, ApiKey, ApiKeyFile, KEY_PREFIX, make_api_key};
pub use certificate::Certificate;
pub use crypto::install;
pub use keys::{KEYS_BYTES_MAX, KEYS_MAX, KeysError, SECRET_LEN_MIN};
pub use mint::{Claims, SigningKey, make_secret, make_token_id, unverified};
pub use principal::{Denied, Kind, Owner, Principal, Resource, may};
pub use revoked::{REVOCATIONS_MAX, Revocation, Revoked};
pub use rights::{Action, InvalidRight, RIGHT_LEN_MAX, RIGHTS_MAX, Right, Rights};
pub use settings::{AuthConfig, CertificateConfig, IssuerConfig, Mode, Place, Wrong};
