//! Each bound at its edge: the last permitted value is accepted, and the next one is refused.

mod support;

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use zonewire_access::{
    API_KEYS_MAX, Access, Action, ApiKey, ApiKeyFile, AuthConfig, Given, IssuerConfig, KEYS_BYTES_MAX,
    KEYS_MAX, MARKS_MAX, Mode, REVOCATIONS_MAX, RIGHT_LEN_MAX, RIGHTS_MAX, Refused, Resource, Revocation,
    Revoked, Right, SECRET_LEN_MIN, SigningKey, Standing, TOKEN_LEN_MAX, make_api_key, make_secret,
    make_token_id, may,
};

use support::*;

fn api_key(roles: &[&str]) -> (String, ApiKey) {
    make_api_key(ApiKey {
        subject: "feed".to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        created_at: now() - 10,
        ..ApiKey::default()
    })
}

/// An issuer's secret, and a file of API keys.
fn access_with_keys(keys: &[&ApiKey]) -> Access {
    let config =
        AuthConfig { issuers: vec![issuer(0, 1)], keys_file: Some("unread".into()), ..AuthConfig::default() };
    given_all(Access::new(config).expect("a valid configuration"), &[SECRET, &file(keys)])
}

fn file(keys: &[&ApiKey]) -> String {
    ApiKeyFile { keys: keys.iter().map(|key| (*key).clone()).collect() }.to_toml()
}

#[test]
fn what_is_shown_has_a_bound() {
    let access = access_with(&[], &[SECRET]);
    let refused = |text: String| access.authenticate(&text).unwrap_err();
    assert_eq!(refused("x".repeat(TOKEN_LEN_MAX)), Refused::Malformed);
    assert_eq!(refused("x".repeat(TOKEN_LEN_MAX + 1)), Refused::TooLong);
    let with = |change| access.authenticate(&hs256(SECRET, &claims(change))).err();
    for (change, expected) in [
        (json!({"jti": "x".repeat(256)}), None),
        (json!({"jti": ""}), Some(Refused::Claims)),
        (json!({"jti": null}), None),
        (json!({"sub": "x".repeat(128)}), None),
        (json!({"tenant": "x".repeat(128)}), None),
        (json!({"tenant": ""}), Some(Refused::Claims)),
        (json!({"exp": now() + 86_400 + 30}), None),
        (json!({"exp": now() + 86_400 + 32}), Some(Refused::Lifetime)),
        (json!({"iat": now() + 30}), None),
        (json!({"iat": now() + 33}), Some(Refused::NotYet)),
        (json!({"iat": 1.5}), None),
    ] {
        assert_eq!(with(change.clone()), expected, "{change}");
    }
    let many: Vec<String> = (0..=RIGHTS_MAX).map(|n| format!("publish:zone:{n}")).collect();
    for rights in [json!(many), json!(many.join("  "))] {
        let principal =
            access.authenticate(&hs256(SECRET, &claims(json!({"rights": rights, "roles": []})))).unwrap();
        assert_eq!(principal.rights().iter().count(), RIGHTS_MAX);
    }
}

#[test]
fn keys_and_secrets_have_bounds() {
    let secret = |len: usize| format!("{}x", "ab".repeat(len)).chars().take(len).collect::<String>();
    assert_eq!(given(false, &secret(SECRET_LEN_MIN)), Given::News);
    assert_ne!(given(false, &secret(SECRET_LEN_MIN - 1)), Given::News);
    let pem = include_str!("keys/ec.pub.pem");
    assert_eq!(given(true, &pem.repeat(KEYS_MAX)), Given::News);
    assert_ne!(given(true, &pem.repeat(KEYS_MAX + 1)), Given::News);
    let padded = |len: usize| format!("{pem}{}", " ".repeat(len - pem.len()));
    assert_eq!(given(true, &padded(KEYS_BYTES_MAX)), Given::News);
    assert_ne!(given(true, &padded(KEYS_BYTES_MAX + 1)), Given::News);
    assert_eq!(given(true, &format!("\u{feff}{pem}")), Given::News);
    // Another curve, and a compressed point: both the curve and the form of the point must be right.
    let der = pem_bytes(pem);
    let as_pem = |der: &[u8]| {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    };
    assert_eq!(given(true, &as_pem(&der)), Given::News);
    for (from_end, byte) in [(65 + 4, 6), (65, 2)] {
        let mut other = der.clone();
        let place = other.len() - from_end;
        other[place] = byte;
        assert_ne!(given(true, &as_pem(&other)), Given::News, "{from_end}");
    }
    let good = rsa_jwk(include_str!("keys/rsa1.pub.pem"), "x");
    let short = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"});
    let with = |name: &str, value: Value| {
        let mut key = good.clone();
        key[name] = value;
        key
    };
    let filled = |count: usize| [vec![good.clone()], vec![short.clone(); count - 1]].concat();
    for (keys, expected) in [
        (filled(KEYS_MAX), None),
        (filled(KEYS_MAX + 1), Some("more than 32 keys")),
        (vec![short.clone()], Some("; 1 of other kinds")),
        (Vec::new(), Some("has no key")),
        (vec![with("key_ops", json!(["verify"]))], None),
        (vec![with("key_ops", json!(["sign"]))], Some("1 of other kinds")),
        (vec![with("use", json!("sig"))], None),
        (vec![with("alg", json!("RS256"))], None),
        (vec![with("alg", json!("PS256"))], Some("1 of other kinds")),
    ] {
        let problem = match given(true, &jwks(&keys)) {
            Given::Problem { problem, .. } => Some(problem),
            _ => None,
        };
        let is_so = match (&problem, expected) {
            (Some(problem), Some(expected)) => problem.contains(expected),
            (problem, expected) => problem.is_none() && expected.is_none(),
        };
        assert!(is_so, "{problem:?} in place of {expected:?}");
        let says_others = problem.is_some_and(|problem| problem.contains("of other kinds"));
        assert_eq!(says_others, expected.is_some_and(|expected| expected.contains("of other kinds")));
    }
}

#[test]
fn a_file_of_api_keys_has_bounds() {
    let with = |change: &dyn Fn(&mut ApiKey)| {
        let (_, mut key) = api_key(&[]);
        change(&mut key);
        ApiKeyFile::read(&file(&[&key])).is_ok()
    };
    for (is_good, len) in [(false, 0), (true, 1), (true, 32), (false, 33)] {
        assert_eq!(with(&|key| key.name = "a".repeat(len)), is_good, "{len}");
    }
    for (is_good, len) in [(false, 0), (true, 1), (true, 128), (false, 129)] {
        assert_eq!(with(&|key| key.subject = "s".repeat(len)), is_good, "{len}");
    }
    for (is_good, digest) in [(true, "0F".repeat(32)), (false, "0".repeat(63)), (false, "g".repeat(64))] {
        assert_eq!(with(&|key| key.sha256.clone_from(&digest)), is_good, "{digest}");
    }
    let many = |count: usize| -> String {
        let digest = "0".repeat(64);
        let key =
            |n| format!("[[key]]\nname = \"{n}\"\nsha256 = \"{digest}\"\nsubject = \"s\"\ncreated_at = 1\n");
        (0..count).map(key).collect()
    };
    assert!(ApiKeyFile::read(&many(API_KEYS_MAX)).is_ok());
    assert!(ApiKeyFile::read(&many(API_KEYS_MAX + 1)).unwrap_err().contains("10000"));
    let fault = ApiKeyFile::read("# one\n# two\n[[key]]\nname = 5\n").unwrap_err();
    assert!(fault.starts_with("line 4: "), "{fault}");
}

#[test]
fn rights_have_bounds() {
    let right = |len: usize| format!("publish:zone:{}", "x".repeat(len - "publish:zone:".len()));
    assert!(right(RIGHT_LEN_MAX).parse::<Right>().is_ok());
    let fault = right(RIGHT_LEN_MAX + 1).parse::<Right>().unwrap_err().to_string();
    assert!(fault.contains("publish:zone:x") && fault.contains("expected"), "{fault}");
    assert_eq!("publish:zone:x".parse::<Right>().unwrap().action(), Action::Publish);
}

#[test]
fn settings_have_bounds() {
    let wrong = |change: &dyn Fn(&mut AuthConfig)| {
        let mut config = AuthConfig::default();
        change(&mut config);
        config.check().len()
    };
    let issuers = |count: usize| -> Vec<IssuerConfig> {
        (0..count).map(|n| IssuerConfig { issuer: n.to_string(), ..issuer(0, 1) }).collect()
    };
    let with_tenant = |tenant: &str| vec![IssuerConfig { tenant: Some(tenant.to_owned()), ..issuer(0, 1) }];
    let with = |change: &dyn Fn(&mut IssuerConfig)| {
        let mut of = issuer(1, 1);
        change(&mut of);
        vec![of]
    };
    type Change<'a> = &'a dyn Fn(&mut AuthConfig);
    let cases: [(usize, Change<'_>); 23] = [
        (0, &|c| c.leeway_s = 600),
        (1, &|c| c.leeway_s = 601),
        (0, &|c| c.verified_max = 1_000_000),
        (1, &|c| c.verified_max = 1_000_001),
        (0, &|c| c.issuers = issuers(16)),
        (1, &|c| c.issuers = issuers(17)),
        (0, &|c| c.issuers = vec![issuer(8, 8)]),
        (1, &|c| c.issuers = vec![issuer(8, 9)]),
        (1, &|c| c.issuers = vec![issuer(0, 0)]),
        (0, &|c| c.issuers = vec![issuer(1, 0)]),
        (0, &|c| c.issuers = with_tenant(&"t".repeat(64))),
        (1, &|c| c.issuers = with_tenant(&"t".repeat(65))),
        (1, &|c| c.issuers = with_tenant("")),
        (1, &|c| c.issuers = with_tenant("a.b")),
        (0, &|c| c.issuers = with_tenant("a-b_C3")),
        (1, &|c| c.issuers = with(&|of| of.audience = Vec::new())),
        (1, &|c| c.issuers = with(&|of| of.audience = vec!["a".to_owned(), String::new()])),
        (1, &|c| c.issuers = with(&|of| of.roles_claim.clear())),
        (1, &|c| c.issuers = with(&|of| of.rights_claim.clear())),
        (1, &|c| c.issuers = with(&|of| of.tenant_claim.clear())),
        (1, &|c| c.roles = [("a b".to_owned(), Vec::new())].into()),
        (0, &|c| (c.mode, c.keys_file) = (Some(Mode::On), Some("keys.toml".into()))),
        (0, &|c| (c.mode, c.anonymous) = (Some(Mode::On), vec!["subscribe:zone:a".to_owned()])),
    ];
    for (number, (expected, change)) in cases.into_iter().enumerate() {
        assert_eq!(wrong(change), expected, "{number}");
    }
}

#[test]
fn whether_anybody_is_asked_is_told() {
    let on = |config: AuthConfig| {
        let access = Access::new(config).unwrap();
        (access.is_on(), access.is_optional(), access.nobody().is_authenticated())
    };
    let nobody_asked = AuthConfig::default();
    assert_eq!(on(nobody_asked.clone()), (false, false, false));
    let access = Access::new(nobody_asked).unwrap();
    assert_eq!(may(&access.nobody(), Action::Admin, Resource::Gateway), Ok(()));
    assert_eq!(on(AuthConfig { keys_file: Some("k".into()), ..AuthConfig::default() }), (true, false, false));
    let off = AuthConfig { issuers: vec![issuer(0, 1)], mode: Some(Mode::Off), ..AuthConfig::default() };
    assert_eq!(on(off), (false, false, false));
    let anonymous = vec!["subscribe:zone:a".to_owned()];
    let public = AuthConfig { mode: Some(Mode::On), anonymous, ..AuthConfig::default() };
    assert_eq!(on(public.clone()), (true, true, false));
    let access = Access::new(public.clone()).unwrap();
    assert_eq!(access.config(), &public);
    assert_eq!(may(&access.nobody(), Action::Subscribe, Resource::Channel("zone:a")), Ok(()));
    assert!(access.role("trader").is_some_and(|rights| rights.len() == 3) && access.role("x").is_none());
}

#[test]
fn roles_that_are_told_of_have_a_bit_each() {
    let names: Vec<String> = (0..MARKS_MAX + 2).map(|n| format!("r{n}")).collect();
    let access = access_with(&[], &[SECRET]).marking(names.clone());
    let marks = |roles: &[&str]| {
        access.authenticate(&hs256(SECRET, &claims(json!({ "roles": roles })))).unwrap().marks()
    };
    assert_eq!((marks(&[]), marks(&["r0"]), marks(&["r2", "r0", "r2"])), (0, 1, 5));
    assert_eq!((marks(&["r15"]), marks(&["r16", "r17"])), (1 << 15, 0));
}

#[test]
fn rights_are_in_memory_once() {
    let access = access_with(&[], &[SECRET]);
    let of = |subject: &str| access.authenticate(&hs256(SECRET, &claims(json!({ "sub": subject })))).unwrap();
    let (alice, bob) = (of("alice"), of("bob"));
    assert!(std::ptr::eq(alice.rights(), bob.rights()));
    assert_eq!(alice.rights().iter().count(), 3);
    // Others between them change nothing.
    let other = access.authenticate(&hs256(SECRET, &claims(json!({ "roles": ["viewer"] })))).unwrap();
    assert!(!std::ptr::eq(other.rights(), alice.rights()));
    assert!(std::ptr::eq(of("carol").rights(), alice.rights()));
}

#[test]
fn revocations_have_a_bound_and_those_that_are_known_are_prolonged() {
    let access = access_with(&[], &[SECRET]);
    let (now, token) = (now(), |jti: &str| hs256(SECRET, &claims(json!({"jti": jti, "iat": null}))));
    let revocation = |what, name: String, until| Revocation { what, name, at: now, until };
    for n in 0..REVOCATIONS_MAX - 1 {
        access.revoke(&revocation(Revoked::Credential, n.to_string(), now + 100)).unwrap();
    }
    assert_eq!(access.revoke(&revocation(Revoked::Subject, "bob".to_owned(), now + 100)), Ok(true));
    assert_eq!(access.revocations(), REVOCATIONS_MAX);
    for what in [Revoked::Credential, Revoked::Subject] {
        let one_more = revocation(what, "one more".to_owned(), now + 100);
        assert!(access.revoke(&one_more).unwrap_err().to_string().contains("100000"));
    }
    for (what, name) in [(Revoked::Credential, "5"), (Revoked::Subject, "bob")] {
        // The longer revocation counts, whichever is recorded last.
        for until in [now + 300, now + 200] {
            assert_eq!(access.revoke(&revocation(what, name.to_owned(), until)), Ok(false), "{name}");
        }
    }
    for (what, name, until) in [
        (Revoked::Credential, "5", Some(now + 300)),
        (Revoked::Credential, "6", Some(now + 100)),
        (Revoked::Subject, "bob", Some(now + 300)),
        (Revoked::Subject, "5", None),
        (Revoked::Credential, "bob", None),
    ] {
        assert_eq!(access.revoked_until(what, name), until, "{what:?} {name}");
    }
    let later = Revocation { at: now + 5, ..revocation(Revoked::Subject, "bob".to_owned(), now + 100) };
    assert_eq!((access.revoke(&later), access.revoke(&later)), (Ok(true), Ok(false)));
    assert_eq!(access.authenticate(&token("5")).unwrap_err(), Refused::Revoked);
    access.forget_revocations(now + 299);
    assert_eq!(access.revocations(), 2);
    assert!(access.authenticate(&token("6")).is_ok());
    let of_bob = |iat: i64| hs256(SECRET, &claims(json!({"sub": "bob", "iat": iat})));
    assert_eq!(access.authenticate(&of_bob(now + 5)).unwrap_err(), Refused::Revoked);
    assert!(access.authenticate(&of_bob(now + 6)).is_ok());
    access.forget_revocations(now + 300);
    assert_eq!(access.revocations(), 0);
}

#[test]
fn keys_of_revocations_are_of_17_characters_and_of_their_kind() {
    let key = |what, name: &str| Revocation { what, name: name.to_owned(), at: 0, until: 0 }.key();
    let (credential, subject) = (key(Revoked::Credential, "a"), key(Revoked::Subject, "a"));
    assert!(credential.len() == 17 && credential.starts_with('c'), "{credential}");
    assert!(subject.len() == 17 && subject.starts_with('s'), "{subject}");
    assert_ne!(credential[1..], subject[1..]);
    assert_ne!(credential, key(Revoked::Credential, "b"));
}

#[test]
fn what_becomes_of_the_holder_of_a_key() {
    let ((shown, key), (other_shown, other)) = (api_key(&["publisher"]), api_key(&["viewer"]));
    let access = access_with_keys(&[&key, &other]);
    let holder = access.authenticate(&shown).unwrap();
    let bystander = access.authenticate(&other_shown).unwrap();
    assert_eq!(access.standing(&holder), Standing::Holds);
    assert_eq!(access.standing(&access.nobody()), Standing::Holds);
    // Both sources are due by then; the file of API keys comes after the issuer's.
    let given = |keys: &[&ApiKey], at: i64| {
        let due = access.due(at).pop().unwrap();
        access.given(&due, Ok((file(keys), None)), at)
    };
    let changed = ApiKey { roles: vec!["viewer".to_owned()], ..key.clone() };
    assert_eq!(given(&[&changed, &other], now() + 10_000), Given::News);
    let Standing::Changed(now_has) = access.standing(&holder) else { panic!("its role has changed") };
    assert_eq!(may(&now_has, Action::Subscribe, Resource::Channel("zone:a")), Ok(()));
    assert_eq!(access.standing(&bystander), Standing::Holds);
    let somebody_else = ApiKey { subject: "mallory".to_owned(), ..key.clone() };
    assert_eq!(given(&[&somebody_else, &other], now() + 20_000), Given::News);
    assert_eq!(access.standing(&holder), Standing::Revoked, "the name went to somebody else");
    assert_eq!(given(&[&other], now() + 30_000), Given::News);
    assert_eq!(access.standing(&holder), Standing::Revoked);
    let unknown = ApiKey { roles: vec!["dancer".to_owned()], ..other.clone() };
    assert!(matches!(given(&[&unknown], now() + 40_000), Given::Problem { .. }));
    let over = ApiKey { expires_at: Some(now() - 1), ..other.clone() };
    assert_eq!(given(&[&over], now() + 50_000), Given::News);
    assert_eq!(access.authenticate(&other_shown).unwrap_err(), Refused::UnknownApiKey);
}

#[test]
fn what_is_made_is_made_once() {
    let made: HashSet<String> =
        (0..50).flat_map(|_| [make_secret(), make_token_id(), api_key(&[]).0, api_key(&[]).1.name]).collect();
    assert_eq!(made.len(), 200);
    assert!(make_secret().len() >= 43 && make_token_id().len() == 16);
    assert!(SigningKey::of_secret(&make_secret()).is_ok());
    // A token put together by hand gets the same signature.
    let token = hs256(SECRET, &claims(json!({})));
    let (signed, signature) = token.rsplit_once('.').unwrap();
    assert_eq!(SigningKey::of_secret(SECRET).unwrap().sign_text(signed), signature);
}

#[test]
fn refusals_have_words_of_their_own() {
    let words: HashSet<&str> = Refused::ALL.iter().map(|refused| refused.as_str()).collect();
    let is_word = |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    assert_eq!(words.len(), Refused::ALL.len());
    assert!(words.iter().all(is_word), "{words:?}");
    assert!(words.contains("expired") && words.contains("unknown_api_key"));
    let awaited = Refused::KeysAwaited { after_s: 7 };
    assert_eq!((awaited.after_s(), Refused::Expired.after_s()), (Some(7), None));
}

#[test]
fn nothing_secret_is_printed() {
    let (shown, key) = api_key(&["publisher"]);
    let access = access_with_keys(&[&key]);
    let text =
        format!("{access:?} {:?} {:?}", SigningKey::of_secret(SECRET).unwrap(), access.authenticate(&shown));
    assert!(!text.contains(SECRET) && !text.contains(&shown) && text.contains("HS256"), "{text}");
    assert!(text.starts_with("Access { is_on: true"), "{text}");
    let holder = access.authenticate(&shown).unwrap();
    assert_eq!(holder.expires_at(), None, "the key has no end");
    let owners = [holder.owner(), access.authenticate(&hs256(SECRET, &claims(json!({})))).unwrap().owner()]
        .map(|owner| owner.unwrap().to_string());
    let is_name = |text: &String| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(owners.iter().all(is_name) && owners[0] != owners[1], "{owners:?}");
    let places: Vec<String> = access.sources().into_iter().map(|of| of.place).collect();
    assert_eq!(places, ["unread", "unread"]);
    let url = "https://id.example/keys";
    let issuer = IssuerConfig { keys: vec![url.to_owned()], ..issuer(0, 0) };
    let of_url = Access::new(AuthConfig { issuers: vec![issuer], ..AuthConfig::default() }).unwrap();
    assert_eq!(of_url.sources()[0].place, url);
}
