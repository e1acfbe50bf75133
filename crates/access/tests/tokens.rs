//! Tokens as issuers sign them, and as attackers forge them.

mod support;

use serde_json::{Value, json};
use zonewire_access::{
    Access, Action, AuthConfig, Given, IssuerConfig, Kind, Mode, Refused, Resource, Revocation, Revoked,
    SigningKey, Standing, TOKEN_LEN_MAX, may, unverified,
};

use support::*;

#[test]
fn each_algorithm_signs_and_verifies() {
    for (private, public, algorithm) in [
        (include_str!("keys/rsa1.pem"), include_str!("keys/rsa1.pub.pem"), "RS256"),
        (include_str!("keys/ec.pem"), include_str!("keys/ec.pub.pem"), "ES256"),
        (include_str!("keys/ed.pem"), include_str!("keys/ed.pub.pem"), "EdDSA"),
    ] {
        let access = access_with(&[public], &[]);
        let key = SigningKey::of_pem(private).unwrap();
        let token = key.sign(&claims(json!({})), None).unwrap();
        assert_eq!(unverified(&token).unwrap().0["alg"], algorithm);
        let alice = access.authenticate(&token).unwrap();
        assert_eq!((alice.kind(), alice.subject()), (Kind::Token, Some("alice")));
        assert_eq!(alice.expires_at(), Some(EXP()));
        assert_eq!(may(&alice, Action::Order, Resource::Gateway), Ok(()));
        assert!(may(&alice, Action::Admin, Resource::Gateway).is_err());
    }
    let access = access_with(&[], &[SECRET]);
    assert!(access.authenticate(&hs256(SECRET, &claims(json!({})))).is_ok());
}

#[test]
fn a_token_that_its_issuer_did_not_sign_does_not_hold() {
    let (rsa, other_rsa) = (include_str!("keys/rsa1.pem"), include_str!("keys/rsa2.pem"));
    let public = include_str!("keys/rsa1.pub.pem");
    let access = access_with(&[public], &[]);
    let good = SigningKey::of_pem(rsa).unwrap().sign(&claims(json!({})), None).unwrap();
    assert!(access.authenticate(&good).is_ok());
    let refused = |token: &str| access.authenticate(token).unwrap_err();
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();

    // Without a signature, with every spelling of `none` (CVE-2015-9235 and similar).
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let header = base64(&json!({"alg": none, "typ": "JWT"}));
        for signature in ["", signature, "AA"] {
            assert_eq!(refused(&format!("{header}.{payload}.{signature}")), Refused::Malformed, "{none}");
        }
    }
    assert_eq!(refused(&format!("{header}.{payload}.")), Refused::Signature);

    // The public key as an HMAC secret (CVE-2016-10555): as PEM, as DER, with and without its final
    // newline.
    let der = pem_bytes(public);
    for secret in [public.as_bytes(), public.trim_end().as_bytes(), &der, &der[24..]] {
        let forged = hs256_of_text(secret, &claims(json!({})).to_string());
        assert_eq!(refused(&forged), Refused::Algorithm);
    }

    // Another algorithm in the header, with the original signature.
    for (said, expected) in [
        ("HS256", Refused::Algorithm),
        ("ES256", Refused::Algorithm),
        ("EdDSA", Refused::Algorithm),
        ("RS512", Refused::Algorithm),
        ("PS256", Refused::Algorithm),
        ("HS999", Refused::Malformed),
    ] {
        let header = base64(&json!({"alg": said}));
        assert_eq!(refused(&format!("{header}.{payload}.{signature}")), expected, "{said}");
    }

    // Changed claims, another key, a key that the token contains or links to.
    let more = base64(&claims(json!({"roles": ["operator"]})));
    assert_eq!(refused(&format!("{header}.{more}.{signature}")), Refused::Signature);
    let attacker = SigningKey::of_pem(other_rsa).unwrap();
    assert_eq!(refused(&attacker.sign(&claims(json!({})), None).unwrap()), Refused::Signature);
    for header in [
        json!({"alg": "RS256", "jku": "https://attacker.example/keys"}),
        json!({"alg": "RS256", "x5u": "https://attacker.example/keys"}),
        json!({"alg": "RS256", "jwk": rsa_jwk(include_str!("keys/rsa2.pub.pem"), "attacker")}),
    ] {
        assert_eq!(refused(&signed_by_hand(&header, &claims(json!({})), &attacker)), Refused::Signature);
    }

    // Extensions that must be understood, and are not (RFC 7515, section 4.1.11).
    let owner = SigningKey::of_pem(rsa).unwrap();
    for crit in [json!(["exp"]), json!([]), json!(["b64"]), json!(["x", "b64"])] {
        let header = json!({"alg": "RS256", "crit": crit, "x": 1});
        assert_eq!(refused(&signed_by_hand(&header, &claims(json!({})), &owner)), Refused::Malformed);
    }
    let header = json!({"alg": "RS256", "b64": false, "crit": ["b64"]});
    assert_eq!(refused(&signed_by_hand(&header, &claims(json!({})), &owner)), Refused::Malformed);
}

#[test]
fn a_name_of_a_key_is_compared_and_nothing_else() {
    let jwks = jwks(&[
        rsa_jwk(include_str!("keys/rsa1.pub.pem"), "one"),
        rsa_jwk(include_str!("keys/rsa2.pub.pem"), "two"),
    ]);
    let access = access_with(&[&jwks], &[]);
    let one = SigningKey::of_pem(include_str!("keys/rsa1.pem")).unwrap();
    let two = SigningKey::of_pem(include_str!("keys/rsa2.pem")).unwrap();
    let with = |key: &SigningKey, id: Option<&str>| {
        access.authenticate(&key.sign(&claims(json!({})), id).unwrap()).err()
    };
    // During a rotation, both keys are valid, with their names and without.
    assert_eq!(with(&one, Some("one")), None);
    assert_eq!(with(&two, Some("two")), None);
    assert_eq!(with(&one, None), None);
    assert_eq!(with(&two, None), None);
    assert_eq!(with(&one, Some("two")), Some(Refused::Signature));
    let ids = [
        "../../../../dev/null",
        "/dev/null",
        "file:///etc/passwd",
        "https://attacker.example/keys",
        "' UNION SELECT 'secret' --",
        "one' OR '1'='1",
        "one\0",
        "One",
        "",
    ];
    // The key may be new, so the source is read once more; after that it counts as unknown.
    let ec = SigningKey::of_pem(include_str!("keys/ec.pem")).unwrap();
    for id in ids {
        assert!(with(&one, Some(id)).unwrap().after_s().is_some(), "{id:?}");
        assert!(with(&ec, Some(id)).unwrap().after_s().is_some(), "{id:?}");
    }
    let [due] = access.due(now() + 2).try_into().unwrap();
    assert!(with(&one, Some("One")).unwrap().after_s().is_some(), "it was only just asked");
    assert_eq!(access.given(&due, Ok((jwks, None)), now()), Given::Same);
    for id in ids {
        assert_eq!(with(&one, Some(id)), Some(Refused::UnknownKey), "{id:?}");
        assert_eq!(with(&ec, Some(id)), Some(Refused::Algorithm), "{id:?}");
    }
    // A known name with an algorithm that no key has: there is nothing to wait for.
    assert_eq!(with(&ec, Some("one")), Some(Refused::Algorithm));
    let secret = SigningKey::of_secret(SECRET).unwrap();
    assert_eq!(with(&secret, Some("new")), Some(Refused::Algorithm), "secrets are not published");
}

#[test]
fn who_came_in_with_a_key_goes_with_it() {
    let (one, two) = (include_str!("keys/rsa1.pub.pem"), include_str!("keys/ec.pub.pem"));
    let sign = |key: &str| SigningKey::of_pem(key).unwrap().sign(&claims(json!({})), None).unwrap();
    let (by_one, by_two) = (sign(include_str!("keys/rsa1.pem")), sign(include_str!("keys/ec.pem")));
    let given = |access: &Access, text: &str, at: i64| {
        let due = access.due(at);
        access.given(&due[0], Ok((text.to_owned(), None)), at)
    };
    let both = format!("{one}{two}");
    let access = access_with(&[&both], &[SECRET]);
    let of = |token: &str| access.authenticate(token).unwrap();
    let (alice, bob) = (of(&by_one), of(&by_two));
    let carol = of(&hs256(SECRET, &claims(json!({}))));
    let standings =
        |access: &Access| [&alice, &bob, &carol].map(|who| access.standing(who) == Standing::Holds);
    assert_eq!(standings(&access), [true; 3]);
    assert_eq!(given(&access, two, now() + 10), Given::News);
    assert_eq!(access.standing(&alice), Standing::KeyWithdrawn);
    assert_eq!(standings(&access), [false, true, true]);
    // The same key in another format is the same key.
    let as_jwks = jwks(&[rsa_jwk(one, "any")]);
    assert_eq!(given(&access, &as_jwks, now() + 20), Given::News);
    assert_eq!(standings(&access), [true, false, true]);

    // The removal of a key from an address needs two answers.
    let issuer = IssuerConfig { keys: vec!["https://id.example/keys".to_owned()], ..issuer(0, 0) };
    let access = Access::new(AuthConfig { issuers: vec![issuer], ..AuthConfig::default() }).unwrap();
    let at = now();
    assert_eq!(given(&access, &both, at), Given::News);
    let alice = access.authenticate(&by_one).unwrap();
    assert_eq!(given(&access, two, at + 1_000), Given::News);
    assert_eq!(access.authenticate(&by_one).unwrap_err(), Refused::Algorithm, "at the door at once");
    assert_eq!(access.standing(&alice), Standing::Holds);
    assert_eq!(given(&access, two, at + 1_010), Given::News);
    assert_eq!(access.standing(&alice), Standing::KeyWithdrawn);
    // So does that of the other one, later.
    let bob = access.authenticate(&by_two).unwrap();
    let third = include_str!("keys/ed.pub.pem");
    for later in [2_000, 2_010] {
        assert_eq!(access.standing(&bob), Standing::Holds);
        assert_eq!(given(&access, third, at + later), Given::News);
    }
    assert_eq!(access.standing(&bob), Standing::KeyWithdrawn);
    assert_eq!(access.standing(&alice), Standing::KeyWithdrawn);
}

#[test]
fn claims_are_checked() {
    let access = access_with(&[], &[SECRET]);
    let (now, exp) = (now(), EXP());
    for (change, expected) in [
        (json!({}), None),
        (json!({"iss": "somebody"}), Some(Refused::UnknownIssuer)),
        (json!({"iss": ["https://id.example/"]}), Some(Refused::Claims)),
        (json!({"iss": null}), Some(Refused::Claims)),
        (json!({"aud": "other"}), Some(Refused::Audience)),
        (json!({"aud": ["other", "zonewire"]}), None),
        (json!({"aud": []}), Some(Refused::Audience)),
        (json!({"aud": null}), Some(Refused::Claims)),
        (json!({"aud": 5}), Some(Refused::Claims)),
        (json!({"sub": null}), Some(Refused::Claims)),
        (json!({"sub": ""}), Some(Refused::Claims)),
        (json!({"sub": 7}), Some(Refused::Claims)),
        (json!({"sub": ["alice"]}), Some(Refused::Claims)),
        (json!({"sub": "a\nb"}), Some(Refused::Claims)),
        (json!({"sub": "x".repeat(129)}), Some(Refused::Claims)),
        (json!({"exp": null}), Some(Refused::Claims)),
        (json!({"exp": now - 31}), Some(Refused::Expired)),
        (json!({"exp": now - 20}), None),
        (json!({"exp": 0}), Some(Refused::Expired)),
        (json!({"exp": -1}), Some(Refused::Claims)),
        (json!({"exp": exp.to_string()}), Some(Refused::Claims)),
        (json!({"exp": exp as f64 + 0.5}), None),
        (json!({"exp": now + 86_400 + 100}), Some(Refused::Lifetime)),
        (json!({"exp": u64::MAX}), Some(Refused::Lifetime)),
        (json!({"exp": i64::MAX}), Some(Refused::Lifetime)),
        (json!({"exp": true}), Some(Refused::Claims)),
        (json!({"nbf": now + 20}), None),
        (json!({"nbf": now + 60}), Some(Refused::NotYet)),
        (json!({"nbf": u64::MAX}), Some(Refused::NotYet)),
        (json!({"nbf": "soon"}), Some(Refused::Claims)),
        (json!({"iat": now + 20}), None),
        (json!({"iat": now + 60}), Some(Refused::NotYet)),
        (json!({"iat": "now"}), Some(Refused::Claims)),
        (json!({"iat": u64::MAX}), Some(Refused::NotYet)),
        (json!({"jti": 5}), Some(Refused::Claims)),
        (json!({"jti": "x".repeat(257)}), Some(Refused::Claims)),
        (json!({"tenant": 5}), Some(Refused::Claims)),
        (json!({"tenant": ["acme"]}), Some(Refused::Claims)),
    ] {
        let answer = access.authenticate(&hs256(SECRET, &claims(change.clone()))).err();
        assert_eq!(answer, expected, "{change}");
    }
    for exp in ["1e400", "1e300", "99999999999999999999999999", "[1]", "{}"] {
        let text = claims(json!({"exp": 77_777})).to_string().replace("77777", exp);
        let token = hs256_of_text(SECRET, &text);
        assert!(access.authenticate(&token).is_err(), "{exp}");
    }
}

#[test]
fn what_is_no_token_is_said_to_be_none() {
    let access = access_with(&[], &[SECRET]);
    let huge = hs256(SECRET, &claims(json!({"x": "y".repeat(TOKEN_LEN_MAX)})));
    assert_eq!(access.authenticate(&huge).unwrap_err(), Refused::TooLong);
    let good = hs256(SECRET, &claims(json!({})));
    for text in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "Bearer x",
        "\0",
        "ä.ö.ü",
        &good[1..],
        &format!("{good}.x"),
        &format!(" {good}"),
        &good.replace('.', ".."),
    ] {
        assert!(access.authenticate(text).is_err(), "{text:?}");
    }
    let deep = hs256_of_text(SECRET, &format!("{}{}", "[".repeat(5_000), "]".repeat(5_000)));
    assert!(access.authenticate(&deep).is_err());
    // The reasons contain nothing of the token.
    for refused in Refused::ALL {
        assert!(!refused.to_string().contains("eyJ"));
    }
}

#[test]
fn keys_are_of_their_issuer_alone() {
    let issuer = |name: &str| IssuerConfig { issuer: name.to_owned(), ..issuer(0, 1) };
    let access =
        Access::new(AuthConfig { issuers: vec![issuer("a"), issuer("b")], ..AuthConfig::default() }).unwrap();
    for (due, secret) in access.due(0).iter().zip([SECRET, OTHER_SECRET]) {
        assert_eq!(access.given(due, Ok((secret.to_owned(), None)), 0), Given::News);
    }
    let of = |iss: &str, secret: &str| access.authenticate(&hs256(secret, &claims(json!({"iss": iss}))));
    let (a, b) = (of("a", SECRET).unwrap(), of("b", OTHER_SECRET).unwrap());
    assert!(!a.is_same_as(&b), "alice of one issuer is not alice of another");
    assert_ne!(a.owner(), b.owner());
    assert_eq!((access.standing(&a), access.standing(&b)), (Standing::Holds, Standing::Holds));
    assert_eq!(of("a", OTHER_SECRET).unwrap_err(), Refused::Signature);
    assert_eq!(of("b", SECRET).unwrap_err(), Refused::Signature);
    assert_eq!(of("c", SECRET).unwrap_err(), Refused::UnknownIssuer);
    // Whoever has a key of one issuer goes with that one's.
    let due = access.due(100);
    assert_eq!(access.given(&due[1], Ok((format!("{OTHER_SECRET} anew"), None)), 100), Given::News);
    assert_eq!((access.standing(&a), access.standing(&b)), (Standing::Holds, Standing::KeyWithdrawn));
    // Also where both issuers have the same key.
    assert_eq!(access.given(&due[1], Ok((SECRET.to_owned(), None)), 200), Given::News);
    let (a, b) = (of("a", SECRET).unwrap(), of("b", SECRET).unwrap());
    assert_eq!((access.standing(&a), access.standing(&b)), (Standing::Holds, Standing::Holds));
    assert_eq!(access.given(&due[1], Ok((OTHER_SECRET.to_owned(), None)), 300), Given::News);
    assert_eq!((access.standing(&a), access.standing(&b)), (Standing::Holds, Standing::KeyWithdrawn));
    assert_eq!(of("b", SECRET).unwrap_err(), Refused::Signature);
}

#[test]
fn keys_that_are_weak_or_wrong_are_not_taken() {
    let is_taken = |public, text: &str| !matches!(given(public, text), Given::Problem { .. });
    let public = include_str!("keys/rsa1.pub.pem");
    for secret in ["", " \n", "short", &"x".repeat(31), &"x".repeat(32), public, "{\"keys\":[]}", &jwks(&[])]
    {
        assert!(!is_taken(false, secret), "{secret:?}");
    }
    assert!(is_taken(false, &format!("  {SECRET}\n")));
    let octets = json!({"kty": "oct", "k": "AAAA", "kid": "x"});
    let mut private = rsa_jwk(public, "x");
    private["d"] = json!("AAAA");
    let mut of_rs512 = rsa_jwk(public, "x");
    of_rs512["alg"] = json!("RS512");
    let mut encrypts = rsa_jwk(public, "x");
    encrypts["use"] = json!("enc");
    for text in [
        "",
        "nothing",
        "{}",
        SECRET,
        include_str!("keys/rsa1.pem"),
        include_str!("keys/rsa1024.pub.pem"),
        include_str!("keys/p384.pub.pem"),
        &jwks(&[]),
        &jwks(&[octets]),
        &jwks(&[private]),
        &jwks(&[of_rs512.clone()]),
        &jwks(&[encrypts]),
        &jwks(&vec![rsa_jwk(public, "x"); 33]),
        &" ".repeat(300_000),
    ] {
        assert!(!is_taken(true, text), "{:?}", &text[..text.len().min(200)]);
    }
    assert!(is_taken(true, &jwks(&[of_rs512, rsa_jwk(public, "y")])), "others are left out");
    let both = format!("{public}{}", include_str!("keys/ec.pub.pem"));
    assert!(is_taken(true, &both));
}

#[test]
fn a_place_that_fails_leaves_its_keys_as_they_are() {
    let access = access_with(&[include_str!("keys/rsa1.pub.pem")], &[]);
    let token =
        SigningKey::of_pem(include_str!("keys/rsa1.pem")).unwrap().sign(&claims(json!({})), None).unwrap();
    let later = now() + 100_000;
    let [due] = access.due(later).try_into().unwrap();
    let gone = access.given(&due, Err("no such file".to_owned()), later);
    assert_eq!(gone, Given::Problem { problem: "no such file".to_owned(), is_news: true });
    assert!(access.authenticate(&token).is_ok());
    let junk = access.given(&due, Ok(("junk".to_owned(), None)), later);
    assert!(matches!(junk, Given::Problem { .. }));
    assert!(access.authenticate(&token).is_ok());
    assert!(access.sources()[0].problem.is_some());
    let other = include_str!("keys/rsa2.pub.pem").to_owned();
    assert_eq!(access.given(&due, Ok((other, None)), later), Given::News);
    assert_eq!(access.authenticate(&token).unwrap_err(), Refused::Signature);
    assert_eq!(access.sources()[0].problem, None);
}

#[test]
fn roles_and_rights_come_from_the_claims_that_are_configured() {
    let issuer = IssuerConfig {
        roles_claim: "realm_access.roles".to_owned(),
        tenant_claim: "https://acme.example/tenant".to_owned(),
        ..issuer(0, 1)
    };
    let roles = [("desk".to_owned(), vec!["subscribe:zone:{tenant}.*".to_owned(), "order".to_owned()])];
    let config = AuthConfig { issuers: vec![issuer], roles: roles.into(), ..AuthConfig::default() };
    let access = given_all(Access::new(config).unwrap(), &[SECRET]);
    let of = |change: Value| access.authenticate(&hs256(SECRET, &claims(change))).unwrap();
    let rights = |change: Value| {
        let mut rights: Vec<String> = of(change).rights().iter().map(ToString::to_string).collect();
        rights.sort();
        rights.join(" ")
    };
    let with = |role: Value, tenant: &str| {
        rights(json!({"roles": null, "realm_access": {"roles": role}, "https://acme.example/tenant": tenant}))
    };
    assert_eq!(with(json!(["desk"]), "acme"), "order subscribe:zone:acme.*");
    assert_eq!(
        with(json!("desk publisher"), "acme"),
        "order publish:event:* publish:zone:* subscribe:zone:acme.*"
    );
    assert_eq!(with(json!(["operator", "worker"]), "acme"), "", "they reach beyond a tenant");
    assert_eq!(with(json!(["nobody knows", 5, null]), "acme"), "");
    assert_eq!(with(json!({"desk": true}), "acme"), "");
    assert_eq!(with(json!(["desk"]), "a.c*e"), "order");
    assert_eq!(rights(json!({"roles": ["operator"]})), "", "that is not the claim");
    let own = json!({"rights": ["publish:zone:x", "dance", "subscribe:*"]});
    assert_eq!(rights(own), "publish:zone:x");
}

#[test]
fn what_was_revoked_does_not_come_in_and_does_not_stay() {
    let access = access_with(&[], &[SECRET]);
    let now = now();
    let token =
        |sub: &str, jti: &str, iat: i64| hs256(SECRET, &claims(json!({"sub": sub, "jti": jti, "iat": iat})));
    let (one, two, bob) =
        (token("alice", "1", now - 10), token("alice", "2", now - 10), token("bob", "1b", now));
    let of = |token: &str| access.authenticate(token);
    let (p1, p2, pb) = (of(&one).unwrap(), of(&two).unwrap(), of(&bob).unwrap());
    let revocation = |what, name: &str| Revocation { what, name: name.to_owned(), at: now, until: now + 100 };
    assert_eq!(access.revoke(&revocation(Revoked::Credential, "1")), Ok(true));
    assert_eq!(access.revoke(&revocation(Revoked::Credential, "1")), Ok(false));
    assert_eq!(of(&one).unwrap_err(), Refused::Revoked);
    assert_eq!(access.standing(&p1), Standing::Revoked);
    assert_eq!((access.standing(&p2), access.standing(&pb)), (Standing::Holds, Standing::Holds));
    assert_eq!(access.revoke(&revocation(Revoked::Subject, "alice")), Ok(true));
    assert_eq!(of(&two).unwrap_err(), Refused::Revoked);
    assert_eq!(access.standing(&p2), Standing::Revoked);
    assert!(of(&bob).is_ok());
    let without = claims(json!({"iat": null, "jti": null}));
    assert_eq!(
        of(&hs256(SECRET, &without)).unwrap_err(),
        Refused::Revoked,
        "nobody knows when it was issued"
    );
    assert!(of(&token("alice", "3", now + 1)).is_ok(), "what is issued later is another matter");
    assert_eq!(access.revocations(), 2);
    access.forget_revocations(now + 100);
    assert_eq!(access.revocations(), 0);
}

#[test]
fn an_address_of_keys_cannot_be_listened_in_on() {
    for (place, good) in [
        ("https://id.example/keys", true),
        ("http://127.0.0.1:5000/keys", true),
        ("http://localhost/keys", true),
        ("http://[::1]/keys", true),
        ("keys/a.pem", true),
        ("http://id.example/keys", false),
        ("http://localhost.attacker.example/keys", false),
        ("https://user:word@id.example/keys", false),
        ("https://user@id.example/keys", false),
        ("https://:word@id.example/keys", false),
        ("ftp://id.example/keys", false),
        ("file:///etc/passwd", false),
        ("", false),
    ] {
        let issuer = IssuerConfig { keys: vec![place.to_owned()], ..issuer(0, 1) };
        let wrong = AuthConfig { issuers: vec![issuer], ..AuthConfig::default() }.check();
        assert_eq!(wrong.is_empty(), good, "{place}: {wrong:?}");
        assert!(!format!("{wrong:?}").contains("word@"), "{wrong:?}");
    }
}

#[test]
fn settings_that_let_nobody_in_or_everybody_are_named() {
    let wrong = |change: &dyn Fn(&mut AuthConfig)| {
        let mut config = AuthConfig::default();
        change(&mut config);
        config.check().into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    let none: [&str; 0] = [];
    assert_eq!(wrong(&|_| {}), none);
    assert_eq!(wrong(&|c| c.mode = Some(Mode::On)), ["mode"]);
    assert_eq!(wrong(&|c| c.anonymous = vec!["subscribe:zone:*".to_owned()]), none);
    for right in ["publish:zone:*", "order", "admin", "subscribe:zone:{tenant}", "subscribe:*"] {
        assert_eq!(wrong(&|c| c.anonymous = vec![right.to_owned()]), ["anonymous"], "{right}");
    }
    assert_eq!(wrong(&|c| c.roles = [("a".to_owned(), vec!["dance".to_owned()])].into()), ["roles"]);
    assert_eq!(wrong(&|c| c.issuers = vec![IssuerConfig::default()]), ["issuers", "issuers"]);
    assert_eq!(wrong(&|c| c.issuers = vec![issuer(0, 1), issuer(0, 1)]), ["issuers"]);
    assert_eq!(wrong(&|c| (c.within_s, c.lifetime_max_s) = (0, 0)), ["within_s", "lifetime_max_s"]);
}
