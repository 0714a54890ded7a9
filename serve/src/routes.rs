//! What there is, who may have it, and from where.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST,
    ORIGIN, TRANSFER_ENCODING, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use llavm_model::processor::image::codecs::to_png;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;
use crate::http::body::{Body, Unread};
use crate::{chat, images, page};

type Shared = State<Arc<App>>;

/// All addresses. The key is asked for before a body is read.
pub fn router(app: &Arc<App>) -> Router {
    let keyed = Router::new()
        .route("/metrics", get(metrics))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/chat/completions", post(chat::completions))
        .route("/preview", post(preview))
        .route_layer(from_fn_with_state(Arc::clone(app), check_key));
    let open = Router::new().route("/health", get(health));
    let page = page::FILES.iter().map(|(path, file)| (*path, get(move || async { page::response(file) })));
    page.fold(open, |open, (path, file)| open.route(path, file))
        .merge(keyed)
        .fallback(async || ApiError::not_found("unknown_url", "there is nothing at this address"))
        .method_not_allowed_fallback(async || ApiError::method())
        .layer(from_fn_with_state(Arc::clone(app), admit))
        .with_state(Arc::clone(app))
}

/// Around everything: counts responses, and lets pages of the origins that were named read them; browsers keep them from all others.
async fn admit(State(app): Shared, request: Request, next: Next) -> Response {
    let shared = cross_origin(request.headers(), &app.settings.cors);
    let mut response = if !is_clear(&request) {
        let error = "a request has one Host, and no transfer coding but one `chunked`";
        Unread(ApiError::invalid("invalid_http", error)).into_response()
    } else if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    response.headers_mut().extend(shared);
    app.metrics.responded(response.status());
    response
}

/// What a proxy in front could have read otherwise is refused (RFC 9112, 3.2 and 6.1); two lengths are, by hyper.
fn is_clear(request: &Request) -> bool {
    let hosts = request.headers().get_all(HOST).iter().count();
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    let chunked = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    chunked && codings.next().is_none() && (hosts == 1 || request.version() < Version::HTTP_11)
}

fn cross_origin(headers: &HeaderMap, origins: &[String]) -> HeaderMap {
    let named = |origin: &&HeaderValue| origins.iter().any(|named| named == "*" || **origin == *named);
    let Some(origin) = headers.get(ORIGIN).filter(named) else { return HeaderMap::new() };
    let usual = HeaderValue::from_static("authorization, content-type");
    let asked = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned().unwrap_or(usual);
    HeaderMap::from_iter([
        (ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
        (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST")),
        (ACCESS_CONTROL_ALLOW_HEADERS, asked),
        (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")),
        (VARY, HeaderValue::from_static("origin")),
    ])
}

async fn check_key(State(app): Shared, request: Request, next: Next) -> Response {
    let sent = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    if allowed(sent, &app.settings.api_keys) {
        next.run(request).await
    } else {
        ApiError::unauthorized().into_response()
    }
}

/// Compares digests: how long it takes says nothing about a key.
fn allowed(sent: &[u8], keys: &[String]) -> bool {
    let scheme = sent.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"Bearer "));
    let sent = blake3::hash(sent.get(7..).unwrap_or_default().trim_ascii());
    let fits = |key: &&String| blake3::hash(key.as_bytes()) == sent;
    keys.is_empty() || (scheme && keys.iter().filter(fits).count() > 0)
}

async fn health(State(app): Shared) -> Result<Json<Value>, ApiError> {
    if app.engine.alive() {
        Ok(Json(json!({"status": "ok"})))
    } else {
        Err(ApiError::unavailable("the model has stopped"))
    }
}

async fn metrics(State(app): Shared) -> Response {
    let text = app.metrics.text(&app.engine, app.settings.limits.cache_bytes);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn models(State(app): Shared) -> Json<Value> {
    Json(json!({"object": "list", "data": [describe(&app)]}))
}

async fn model(
    State(app): Shared,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let name = name.map_or(String::new(), |Path(name)| name); // what is no UTF-8 is the name of nothing
    app.check_model(&name).map(|()| Json(describe(&app)))
}

/// The one model; `max_model_len` is vLLM's name for its context.
fn describe(app: &App) -> Value {
    json!({
        "id": app.settings.name,
        "object": "model",
        "created": app.started,
        "owned_by": "llavm",
        "max_model_len": app.engine.context(),
        "image_size": app.image.size,
        "image_tokens": app.processor.image_tokens().count,
        "max_images": app.settings.max_images,
    })
}

/// What the model sees of an image: its bytes in, the square out as PNG.
async fn preview(State(app): Shared, body: Body) -> Result<Response, ApiError> {
    let image = app.image.clone();
    let png = app.work(move || {
        let pixels = images::prepare(&body.bytes, &image)?;
        drop(body);
        let plane = image.size as usize * image.size as usize;
        let at =
            |channel: usize, pixel: usize| pixels.get(channel * plane + pixel).copied().unwrap_or_default();
        let rgb: Vec<u8> = (0..plane).flat_map(|pixel| [at(0, pixel), at(1, pixel), at(2, pixel)]).collect();
        to_png(&rgb, (image.size, image.size))
            .ok_or_else(|| ApiError::internal("the square could not be written"))
    });
    Ok(([(CONTENT_TYPE, "image/png"), (CACHE_CONTROL, "no-store")], png.await?).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_must_be_one_of_those_that_are_set() {
        let keys = ["one".to_owned(), "two".to_owned()];
        for right in ["Bearer one", "bearer two", "Bearer  two "] {
            assert!(allowed(right.as_bytes(), &keys), "{right}");
        }
        for wrong in [
            "Bearer three",
            "Bearer ",
            "Bearer",
            "one",
            "Basic one",
            "Bearer onetwo",
            "",
            "Bearer\u{e9}\u{e9}",
        ] {
            assert!(!allowed(wrong.as_bytes(), &keys), "{wrong}");
        }
        assert!(allowed(b"", &[]));
    }
}
