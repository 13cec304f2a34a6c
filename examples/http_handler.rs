//! The recognizer in a handler of your own HTTP service, with axum.
//!
//! Run: cargo run --release -p lenet5-reader --example http_handler
//! Then: curl --data-binary @tests/pictures/407.png http://127.0.0.1:3000/read

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use lenet5_core::recognizer::Reading;
use lenet5_core::{Network, Picture, PictureLimits, Recognizer};

async fn read(
    State(recognizer): State<Arc<Recognizer>>,
    body: Bytes,
) -> Result<Json<Reading>, (StatusCode, String)> {
    // Reading takes milliseconds of computation, so it must not block the threads of tokio.
    let read = move || {
        let picture = Picture::decode(&body, &PictureLimits::default())?;
        recognizer.read(&picture).map_err(|error| error.to_string())
    };
    let reading = tokio::task::spawn_blocking(read).await.expect("reading does not panic");
    reading.map(Json).map_err(|message| (StatusCode::UNPROCESSABLE_ENTITY, message))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let recognizer = Arc::new(Recognizer::shipped(Network::Modern)?);
    let app = Router::new()
        .route("/read", post(read))
        .layer(DefaultBodyLimit::max(16 << 20))
        .with_state(recognizer);
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
