# medsearch: the program and the CPU part of libtorch on Debian. No compiler, no Python in the result.
# Both bases can be replaced: scripts/image does so on a machine that reaches no image registry.
ARG BUILD_BASE=docker.io/library/rust:1.95-bookworm
ARG RUN_BASE=docker.io/library/debian:bookworm-slim

FROM ${BUILD_BASE} AS libtorch
RUN python3 -c 'import venv, ensurepip' 2>/dev/null && command -v c++ readelf >/dev/null && [ -s /etc/ssl/certs/ca-certificates.crt ] \
    || { apt-get update && apt-get install -y --no-install-recommends ca-certificates g++ binutils python3 python3-venv && rm -rf /var/lib/apt/lists/*; }
WORKDIR /src
COPY Cargo.toml requirements-torch.txt ./
COPY scripts/lib scripts/lib
RUN scripts/lib/libtorch /opt/libtorch

FROM libtorch AS build
COPY . .
ENV LIBTORCH=/opt/libtorch
RUN cargo build --release --locked --bin medsearch && strip --strip-debug target/release/medsearch
RUN python3 scripts/make_sbom.py --out /opt/sbom/medsearch.cdx.json

FROM ${RUN_BASE}
LABEL org.opencontainers.image.title="medsearch" \
      org.opencontainers.image.description="Medical image similarity search. Research use only, not for diagnosis." \
      org.opencontainers.image.licenses="MIT" \
      medsearch.sbom="/opt/medsearch/sbom/medsearch.cdx.json"
# The program looks for libtorch in the folder lib beside its own.
COPY --from=build /opt/libtorch/lib/ /opt/medsearch/lib/
COPY --from=build /opt/libtorch/licenses/ /opt/medsearch/licenses/
# Whom to trust when the archive is in a bucket; the slim image has none.
COPY --from=libtorch /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/LICENSE /opt/medsearch/licenses/medsearch
# What is in it (CycloneDX): the label medsearch.sbom says where.
COPY --from=build /opt/sbom/ /opt/medsearch/sbom/
COPY --from=build /src/target/release/medsearch /opt/medsearch/bin/medsearch
ENV PATH=/opt/medsearch/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 8000
# No HEALTHCHECK: orchestrators probe /livez and /readyz themselves.
ENTRYPOINT ["medsearch"]
CMD ["--help"]
