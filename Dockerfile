# The operator's image: the program, linked statically, the certificates that it trusts AWS by, and nothing else; no shell, not root.
#
#     docker buildx build --platform linux/amd64,linux/arm64 --tag <registry>/mtls-operator:0.1.0 --push .
#
# Each architecture is built on a builder of its own kind (`docker buildx create --append`); emulated it takes hours.
#
# The tag of the base is pinned to a version. To pin its bytes too, write behind it the digest that
# `docker buildx imagetools inspect rust:1.95.0-slim-bookworm` prints first: rust:1.95.0-slim-bookworm@sha256:... It is of both architectures.

# The version of rust-toolchain.toml. glibc resolves names without loading libraries from 2.34 on (here it is 2.36), so that a static program can.
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
COPY . .
# The target is named so that the flags are for the program alone, and not for what runs while it is built. `.ci/static` is the same.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    .ci/static --release && mv target/*-linux-gnu/release/mtls-operator /mtls-operator

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /mtls-operator /usr/local/bin/mtls-operator
ENV PATH=/usr/local/bin
# As the chart's securityContext, which wants a number here.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/mtls-operator"]
