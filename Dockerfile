# For those who have Docker. `cargo xtask image` builds the same image without it.
FROM rust:1.92-alpine AS build
RUN apk add --no-cache musl-dev ca-certificates
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package throughline --bin throughline

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/throughline /throughline
USER 65532:65532
ENTRYPOINT ["/throughline"]
