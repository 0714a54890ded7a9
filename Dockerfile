# The program alone, for the CPU:
#
#   docker build -t llavm .
#   docker run --rm -p 8080:8080 -v "$PWD:/work" llavm serve quickstart.toml --host 0.0.0.0
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/target \
    CARGO_TARGET_DIR=/target cargo build --release --locked && cp /target/release/llavm /llavm && strip /llavm

FROM debian:bookworm-slim
COPY --from=build /llavm /usr/local/bin/llavm
# Whatever is written belongs to whoever starts it: --user "$(id -u):$(id -g)".
WORKDIR /work
USER 1000:1000
ENV HF_HOME=/work/.cache/huggingface
EXPOSE 8080
ENTRYPOINT ["llavm"]
CMD ["--help"]
