//! Certificates as they arrive after TLS has verified them.

mod support;

use zonewire_access::{
    Access, Action, ApiKey, ApiKeyFile, AuthConfig, Certificate, CertificateConfig, Given, Kind, Refused,
    Resource, Revocation, Revoked, Standing, make_api_key, may,
};

use support::now;

fn listed(name: &str, change: impl FnOnce(&mut CertificateConfig)) -> CertificateConfig {
    let mut listed = CertificateConfig {
        name: name.to_owned(),
        roles: vec!["viewer".to_owned()],
        ..CertificateConfig::default()
    };
    change(&mut listed);
    listed
}

fn config(certificates: Vec<CertificateConfig>) -> AuthConfig {
    AuthConfig { certificates, ..AuthConfig::default() }
}

/// A certificate that is valid for an hour, from the first generation of authorities.
fn shows(names: &[&str]) -> Certificate {
    Certificate {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        not_before: now() - 3_600,
        not_after: now() + 3_600,
        authorities: 1,
    }
}

#[test]
fn a_name_that_is_listed_letter_by_letter_is_somebody_and_no_other_is() {
    let certificates = vec![
        listed("URI:spiffe://example.com/feed", |listed| listed.subject = Some("feed".to_owned())),
        listed("CN:desk", |listed| {
            listed.tenant = Some("acme".to_owned());
            listed.roles = vec!["trader".to_owned()];
            listed.rights = vec!["publish:zone:{tenant}.*".to_owned(), "admin".to_owned()];
        }),
        listed("DNS:desk", |_| {}),
    ];
    let access = Access::new(config(certificates)).unwrap();
    assert!(access.is_on());
    let shown = shows(&["CN:x", "URI:spiffe://example.com/feed"]);
    let feed = access.certified(&shown).unwrap();
    assert_eq!((feed.kind(), feed.subject()), (Kind::Certificate, Some("feed")));
    assert_eq!(feed.expires_at(), Some(shown.not_after + 1));
    assert_eq!(may(&feed, Action::Subscribe, Resource::Channel("zone:a")), Ok(()));
    assert!(may(&feed, Action::Publish, Resource::Channel("zone:a")).is_err());
    let desk = access.certified(&shows(&["CN:desk"])).unwrap();
    assert_eq!(desk.subject(), Some("desk"));
    assert_eq!(may(&desk, Action::Publish, Resource::Channel("zone:acme.a")), Ok(()));
    assert!(may(&desk, Action::Admin, Resource::Gateway).is_err(), "within a tenant there is none");
    assert_eq!(may(&desk, Action::Order, Resource::Gateway), Ok(()));
    // The same value as a different kind is a different name.
    assert_eq!(access.certified(&shows(&["DNS:desk"])).unwrap().tenant(), None);
    for other in
        ["CN:feed", "CN:Desk", "CN:desk ", "CN:des", "DNS:spiffe://example.com/feed", "desk", "email:desk"]
    {
        assert_eq!(access.certified(&shows(&[other])), None, "{other}");
    }
    assert_eq!(access.certified(&shows(&[])), None);
    // Whatever the order in the certificate, the first entry in the settings counts.
    for names in [["CN:desk", "DNS:desk"], ["DNS:desk", "CN:desk"]] {
        assert!(access.certified(&shows(&names)).unwrap().tenant().is_some(), "{names:?}");
    }
}

#[test]
fn an_order_is_its_subjects_whether_that_comes_by_certificate_or_by_api_key() {
    let certificates =
        vec![listed("CN:a", |l| l.subject = Some("desk".to_owned())), listed("DNS:desk", |_| {})];
    let access =
        Access::new(AuthConfig { keys_file: Some("unread".into()), ..config(certificates) }).unwrap();
    let (key, kept) = make_api_key(ApiKey {
        subject: "desk".to_owned(),
        roles: vec!["trader".to_owned()],
        created_at: now() - 10,
        ..ApiKey::default()
    });
    let due = access.due(now()).remove(0);
    let file = ApiKeyFile { keys: vec![kept] }.to_toml();
    assert_eq!(access.given(&due, Ok((file.clone(), None)), now()), Given::News);
    let of_key = access.authenticate(&key).unwrap();
    for name in ["CN:a", "DNS:desk"] {
        let certified = access.certified(&shows(&[name])).unwrap();
        assert_eq!(certified.owner(), of_key.owner(), "{name}");
        assert!(!certified.is_same_as(&of_key), "a connection stays with what was shown at first");
    }
    assert!(access.outlives_tokens("desk") && !access.outlives_tokens("a"));
    // A key alone is enough, and so is a certificate alone.
    let only_key =
        Access::new(AuthConfig { keys_file: Some("unread".into()), ..config(Vec::new()) }).unwrap();
    let due = only_key.due(now()).remove(0);
    assert_eq!(only_key.given(&due, Ok((file, None)), now()), Given::News);
    assert!(only_key.outlives_tokens("desk") && !only_key.outlives_tokens("feed"));
    let only_certificate = Access::new(config(vec![listed("CN:feed", |_| {})])).unwrap();
    assert!(only_certificate.outlives_tokens("feed") && !only_certificate.outlives_tokens("desk"));
}

#[test]
fn a_certificate_ends_with_its_time_its_subject_and_its_authorities() {
    let access = Access::new(config(vec![listed("CN:feed", |_| {})])).unwrap();
    let feed = access.certified(&shows(&["CN:feed"])).unwrap();
    assert_eq!((access.still_certified(&feed), access.standing(&feed)), (Ok(()), Standing::Holds));
    let over = Certificate { not_after: now() - 1, ..shows(&["CN:feed"]) };
    let over = access.certified(&over).unwrap();
    assert_eq!(access.still_certified(&over), Err(Refused::CertificateExpired));

    let at = now();
    let revocation = Revocation { what: Revoked::Subject, name: "feed".to_owned(), at, until: at + 60 };
    access.revoke(&revocation).unwrap();
    assert_eq!(access.still_certified(&feed), Err(Refused::Revoked));
    assert_eq!(access.standing(&feed), Standing::Revoked);
    let issued_later = Certificate { not_before: at + 1, ..shows(&["CN:feed"]) };
    let anew = access.certified(&issued_later).unwrap();
    assert_eq!(access.still_certified(&anew), Ok(()));

    let number = access.withdraw_authorities();
    assert_eq!(
        (access.still_certified(&anew), access.authorities()),
        (Err(Refused::AuthorityWithdrawn), number)
    );
    assert_eq!(access.standing(&anew), Standing::KeyWithdrawn);
    let of_the_others = Certificate { authorities: number, ..issued_later };
    assert_eq!(access.standing(&access.certified(&of_the_others).unwrap()), Standing::Holds);
}

#[test]
fn what_is_listed_wrongly_is_said() {
    let long = format!("URI:{}", "x".repeat(129));
    for (entry, expected) in [
        (listed("feed", |_| {}), "of which kind"),
        (listed("", |_| {}), "of which kind"),
        (listed("CN:", |_| {}), "visible characters"),
        (listed("CN:a\u{7}", |_| {}), "visible characters"),
        (listed(&long, |_| {}), "visible characters"),
        (listed("CN:a", |listed| listed.subject = Some(String::new())), "visible characters"),
        (listed("CN:a", |listed| listed.roles = vec!["captain".to_owned()]), "no role"),
        (listed("CN:a", |listed| listed.rights = vec!["dance".to_owned()]), "is not a right"),
        (listed("CN:a", |listed| listed.tenant = Some("a b".to_owned())), "`tenant`"),
    ] {
        let wrong = Access::new(config(vec![entry])).unwrap_err();
        let [(key, problem)] = &wrong[..] else { panic!("{wrong:?}") };
        assert!(key == "certificates" && problem.contains(expected), "{expected}: {problem}");
    }
    let twice = Access::new(config(vec![listed("CN:a", |_| {}), listed("CN:a", |_| {})])).unwrap_err();
    assert!(twice[0].1.contains("twice"), "{twice:?}");
    let named = listed(&long, |listed| listed.subject = Some("short".to_owned()));
    assert!(Access::new(config(vec![named])).is_ok());
}
