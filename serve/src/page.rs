//! The page: three files in the program, no build step, nothing from elsewhere.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};

const HTML: &str = include_str!("page/index.html");
const CSS: &str = include_str!("page/page.css");
const JS: &str = include_str!("page/page.js");

/// Nothing is loaded from anywhere else, and no other page may frame this one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page: its type and its text.
type File = (&'static str, &'static str);

/// Where the files are.
pub static FILES: [(&str, File); 3] = [
    ("/", ("text/html; charset=utf-8", HTML)),
    ("/page.css", ("text/css; charset=utf-8", CSS)),
    ("/page.js", ("text/javascript; charset=utf-8", JS)),
];

/// The response of a file.
pub fn response((kind, text): &File) -> Response {
    let headers = [
        (CONTENT_TYPE, *kind),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, *text).into_response()
}
