//! The page at `/`: the files of `frontend/dist`, embedded as `npm run build` wrote and compressed them.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderValue, IF_NONE_MATCH, VARY,
};
use warp::reply::Response;

use super::accepts::wanted;

/// The file that a browser opens.
pub(super) const INDEX: &str = "index.html";

/// File names in this folder contain a hash of the content, so the content of a name never changes.
pub(super) const ASSETS: &str = "assets/";

/// Only the gateway's own scripts, styles and images; no framing of the page, and no text that is turned
/// into markup or script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// A file of the page.
#[derive(Debug)]
struct File {
    path: &'static str,
    /// Its `Content-Type`.
    kind: &'static str,
    /// A hash of the content.
    tag: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
    brotli: &'static [u8],
}

const FILES: &[File] = include!("../../frontend/dist/files.rs");

/// A file of the page, in the coding that the client prefers; 304 if the client has it already (RFC 9110,
/// section 13.1.2). `None` if there is no such file.
pub(super) fn file(path: &str, headers: &HeaderMap) -> Option<Response> {
    let file = FILES.iter().find(|file| file.path == path)?;
    let weight = |names: &[&str]| wanted(headers, &ACCEPT_ENCODING, names).unwrap_or(0.0);
    let (brotli, gzip) = (weight(&["br", "*"]), weight(&["gzip", "x-gzip", "*"]));
    let (coding, bytes) = if brotli > 0.0 && brotli >= gzip {
        (Some("br"), file.brotli)
    } else if gzip > 0.0 {
        (Some("gzip"), file.gzip)
    } else {
        (None, file.plain)
    };
    let tag = format!("\"{}{}\"", file.tag, coding.map_or_else(String::new, |coding| format!("-{coding}")));
    let has_it = is_had(headers, &tag);
    let mut response = Response::new(if has_it { Bytes::new() } else { Bytes::from_static(bytes) }.into());
    let is_for_good = path.starts_with(ASSETS);
    let caching = if is_for_good { "public, max-age=31536000, immutable" } else { "no-cache" };
    let told = response.headers_mut();
    told.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    told.insert(ETAG, HeaderValue::from_str(&tag).expect("a hash is of visible characters"));
    told.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if path == INDEX {
        // Replaces the policy of all other answers (`safeguards`).
        told.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    }
    if has_it {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Some(response);
    }
    told.insert(CONTENT_TYPE, HeaderValue::from_static(file.kind));
    if let Some(coding) = coding {
        told.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    Some(response)
}

/// Whether the client's cache has this ETag.
fn is_had(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|had| had == "*" || had.strip_prefix("W/").unwrap_or(had) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(path: &str, said: &[(&'static str, &str)]) -> Response {
        let headers =
            said.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()));
        file(path, &headers.collect()).unwrap()
    }

    fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
        response.headers().get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn every_file_comes_in_the_coding_that_is_liked_best() {
        for (accepted, expected) in [
            ("", None),
            ("identity", None),
            ("gzip", Some("gzip")),
            ("gzip, deflate, br", Some("br")),
            ("gzip, br;q=0.5", Some("gzip")),
            ("br;q=0, *", Some("gzip")),
            ("*", Some("br")),
        ] {
            for File { path, kind, .. } in FILES {
                let answer = ask(path, &[("accept-encoding", accepted)]);
                assert_eq!(header(&answer, "content-encoding"), expected, "{path} {accepted:?}");
                assert_eq!(header(&answer, "content-type"), Some(*kind));
                assert_eq!(header(&answer, "vary"), Some("accept-encoding"));
            }
        }
    }

    #[test]
    fn a_file_that_the_client_has_is_not_sent_again() {
        for File { path, .. } in FILES {
            let first = ask(path, &[("accept-encoding", "br")]);
            let tag = header(&first, "etag").unwrap().to_owned();
            for (had, status) in [
                (tag.clone(), 304),
                (format!("\"x\", W/{tag}"), 304),
                ("*".to_owned(), 304),
                ("\"x\"".to_owned(), 200),
            ] {
                let again = ask(path, &[("accept-encoding", "br"), ("if-none-match", &had)]);
                assert_eq!(again.status(), status, "{path} {had}");
                assert_eq!(header(&again, "etag"), Some(tag.as_str()));
            }
            // Another coding has other bytes, and so another ETag.
            assert_eq!(ask(path, &[("if-none-match", &tag)]).status(), 200);
        }
    }

    #[test]
    fn only_what_cannot_change_is_kept_for_good() {
        for File { path, .. } in FILES {
            let caching = header(&ask(path, &[]), "cache-control").unwrap().to_owned();
            assert_eq!(caching.contains("immutable"), path.starts_with(ASSETS), "{path}");
        }
        assert!(FILES.iter().any(|file| file.path == INDEX));
        assert!(file("assets/nowhere.js", &HeaderMap::new()).is_none());
    }

    #[test]
    fn the_page_names_only_what_is_there_and_relative_to_itself() {
        let index = FILES.iter().find(|file| file.path == INDEX).unwrap();
        let html = std::str::from_utf8(index.plain).unwrap();
        let named: Vec<_> = ["src=\"", "href=\""]
            .into_iter()
            .flat_map(|name| html.split(name).skip(1))
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        assert!(named.len() >= 3, "{html}");
        for name in named {
            let path =
                name.strip_prefix("./").unwrap_or_else(|| panic!("{name} is not relative to the page"));
            assert!(file(path, &HeaderMap::new()).is_some(), "{name}");
        }
        assert!(
            !html.contains("<style") && !html.contains(" style=") && !html.contains("<script>"),
            "{html}"
        );
    }
}
