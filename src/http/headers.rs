//! What every answer says to a browser: that it is what it says it is, that no other site may use, frame or keep it, and that it may do nothing.

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::rate::{Left, Spent, WINDOW};

/// For whatever is no page: JSON, pictures, problems, text.
const NO_PAGE: &str = "default-src 'none'; frame-ancestors 'none'";
/// What a page might ask the browser for, and none does: by nobody, also not in a frame.
const PERMISSIONS: &str = "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), magnetometer=(), \
     microphone=(), midi=(), payment=(), publickey-credentials-get=(), screen-wake-lock=(), serial=(), usb=(), xr-spatial-tracking=()";
/// A year in which a browser asks for this host by TLS only (RFC 6797, 6.1.1). Other names of its domain are others' to decide.
const TRANSPORT_SECURITY: &str = "max-age=31536000";

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// Headers whose values depend on nothing.
const ALWAYS: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
    (header::CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
    // Says the same as `frame-ancestors`, to browsers and scanners that do not read that.
    (header::X_FRAME_OPTIONS, "DENY"),
    (PERMISSIONS_POLICY, PERMISSIONS),
];

/// Adds them. What an endpoint says itself of its policy and of caches stays: pages have a policy of their own, and show nothing of the archive.
/// `host_by_tls`: this answer goes out by TLS, from a host that other machines know.
pub fn add(headers: &mut HeaderMap, host_by_tls: bool) {
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(NO_PAGE));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if host_by_tls {
        headers.insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static(TRANSPORT_SECURITY),
        );
    }
}

/// Says how many requests are left (draft-ietf-httpapi-ratelimit-headers-10): `q` of a full bucket, which a minute (`w`) fills, `r` left, full in `t` seconds.
pub fn add_rate(headers: &mut HeaderMap, spent: Spent, left: Left) {
    let (name, window_s) = (spent.as_str(), WINDOW.as_secs());
    let full_in_s = left.full_in.as_secs() + u64::from(left.full_in.subsec_nanos() > 0);
    for (header, value) in [
        ("ratelimit-policy", format!("\"{name}\";q={};w={window_s}", left.limit)),
        ("ratelimit", format!("\"{name}\";r={};t={full_in_s}", left.remaining)),
    ] {
        let value = HeaderValue::from_str(&value).expect("letters, digits and punctuation are a header");
        headers.insert(HeaderName::from_static(header), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_endpoint_says_stays_and_the_rest_is_closed() {
        let mut page = HeaderMap::new();
        page.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'self'"),
        );
        page.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        page.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
        add(&mut page, false);
        assert_eq!(page.get(header::CONTENT_SECURITY_POLICY).unwrap(), "default-src 'self'");
        assert_eq!(page.get(header::CACHE_CONTROL).unwrap(), "no-cache");
        assert_eq!(page.get(header::X_FRAME_OPTIONS).unwrap(), "DENY");

        let mut other = HeaderMap::new();
        add(&mut other, true);
        assert_eq!(other.get(header::CONTENT_SECURITY_POLICY).unwrap(), NO_PAGE);
        assert_eq!(other.get(header::CACHE_CONTROL).unwrap(), "no-store");
    }

    #[test]
    fn only_by_tls_a_browser_is_told_to_ask_by_tls() {
        for by_tls in [false, true] {
            let mut headers = HeaderMap::new();
            add(&mut headers, by_tls);
            assert_eq!(headers.contains_key(header::STRICT_TRANSPORT_SECURITY), by_tls);
        }
    }
}
