# The operator's image: the statically linked program, the CA certificates for TLS connections to AWS, the
# licences of what the program contains, and nothing else; no shell, not root.
#
#     docker buildx build --platform linux/amd64,linux/arm64 --tag <registry>/mtls-operator:0.1.0 --push .
#
# Build each architecture on a native builder (`docker buildx create --append`); an emulated build takes
# hours.
#
# The base image is pinned by its tag and by its content. `docker buildx imagetools inspect
# rust:1.95.0-slim-bookworm` prints the digest of the tag first; it covers both architectures. Change the
# version and the digest together.

# The same version as in rust-toolchain.toml. A static program needs glibc 2.34 or later (here 2.36), which
# resolves names without loading libraries.
FROM rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082 AS build
WORKDIR /src
COPY . .
# `.ci/static` names the target, so that its flags apply to the program only, not to build scripts.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    .ci/static --release && mv target/*-linux-gnu/release/mtls-operator /mtls-operator && \
    mkdir /licenses && cp LICENSE THIRD-PARTY-LICENSES /licenses/

FROM scratch
# A release sets these: `--build-arg VERSION=0.1.0 --build-arg REVISION=$(git rev-parse HEAD)`.
ARG VERSION=0.0.0-dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mtls-operator" \
      org.opencontainers.image.description="AWS API Gateway custom domains behind mutual TLS, and the client certificates for them" \
      org.opencontainers.image.source="https://github.com/mtls-operator/mtls-operator" \
      org.opencontainers.image.url="https://github.com/mtls-operator/mtls-operator" \
      org.opencontainers.image.documentation="https://github.com/mtls-operator/mtls-operator/blob/main/docs/README.md" \
      org.opencontainers.image.vendor="The mtls-operator maintainers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /licenses /licenses
COPY --from=build /mtls-operator /usr/local/bin/mtls-operator
ENV PATH=/usr/local/bin
# The user of the chart's securityContext; runAsNonRoot requires a number here.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/mtls-operator"]
