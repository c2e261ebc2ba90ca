# The wheel is built in one stage and installed in the next: no source tree, no compiler, no links in the image. What it
# needs comes from a lock with hashes (`make lock`).
FROM python:3.12-slim AS build
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir build && python -m build --wheel --outdir /wheels

FROM python:3.12-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/farthing --create-home farthing
COPY deploy/requirements.lock /tmp/
RUN pip install --no-cache-dir --require-hashes --requirement /tmp/requirements.lock
COPY --from=build /wheels/*.whl /tmp/
RUN pip install --no-cache-dir --no-deps /tmp/*.whl && rm /tmp/*.whl /tmp/requirements.lock
USER farthing
WORKDIR /var/lib/farthing
ENV FARTHING_STATE_DIR=/var/lib/farthing/state \
    FARTHING_SERVER__HOST=0.0.0.0 \
    FARTHING_SERVER__PORT=8080
VOLUME /var/lib/farthing/state
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["farthing"]
CMD ["serve"]
