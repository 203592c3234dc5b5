//! What a request may see, beyond what it needs to be let in.

use actix_web::{HttpMessage, HttpRequest};

use super::{KeyHolder, Scope};

/// Whether whoever asks is shown whose images these are, where the archive keeps that: with a key that has the scope `link`, and where nobody needs a
/// key, which is only on the machine that has the archive's secret.
pub fn sees_links(request: &HttpRequest) -> bool {
    let extensions = request.extensions();
    let holder = extensions.get::<KeyHolder>();
    holder.is_none_or(|holder| holder.scopes.allow(Scope::Link))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::http::access::Scopes;

    #[test]
    fn a_key_needs_the_scope() {
        let sees = |scopes: Option<Scopes>| {
            let request = TestRequest::default().to_http_request();
            if let Some(scopes) = scopes {
                let name = "k".parse().unwrap();
                request.extensions_mut().insert(KeyHolder { name, scopes });
            }
            sees_links(&request)
        };
        assert!(sees(None));
        for scope in Scope::ALL {
            let expected = matches!(scope, Scope::Link | Scope::Admin);
            assert_eq!(sees(Some(Scopes::new([scope]).unwrap())), expected, "{scope}");
        }
    }
}
