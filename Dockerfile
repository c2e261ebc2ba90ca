# The wheel is built in one stage, installed into an environment in the second, and only that environment is in the image: no
# source tree, no compiler, no build tools. Runs as user 10001 on a read-only root file system; what it writes is in the volume:
#
#   docker build -t farthing:0.1.0 .
#   docker run --read-only --tmpfs /tmp --cap-drop ALL -p 127.0.0.1:8080:8080 -v farthing:/var/lib/farthing/state farthing:0.1.0
#
# For builds that are the same tomorrow give the base by its digest: --build-arg BASE=python:3.12.12-slim-bookworm@sha256:...
ARG BASE=python:3.12.12-slim-bookworm

# What makes the wheel is locked too, since its code could put anything into it. Wheels only, here and below: a source archive would
# be built by tools that nobody has locked.
FROM ${BASE} AS wheel
COPY deploy/build.lock /
RUN python -m pip install --no-cache-dir --only-binary :all: --require-hashes -r /build.lock
WORKDIR /src
COPY . .
RUN python -m build --no-isolation --wheel --outdir /wheels

FROM ${BASE} AS environment
COPY --from=wheel /wheels /wheels
COPY deploy/requirements.lock /wheels/
RUN python -m venv --without-pip /opt/farthing \
 && python -m pip --python /opt/farthing/bin/python install --no-cache-dir --no-compile --only-binary :all: --require-hashes -r /wheels/requirements.lock \
 && python -m pip --python /opt/farthing/bin/python install --no-cache-dir --no-compile --no-deps /wheels/*.whl
# What nothing here loads: tests, sources of extensions, onnxruntime's tools and its second copy of itself for C, zstandard's
# second way to its library, and what tokenizers would download models with. Stays: the licences.
RUN cd /opt/farthing/lib/python3*/site-packages \
 && python -m pip --python /opt/farthing/bin/python uninstall --yes hf-xet huggingface-hub fsspec \
 && rm -rf onnxruntime/capi/libonnxruntime.so.* onnxruntime/transformers onnxruntime/quantization onnxruntime/tools numpy/f2py \
      zstandard/_cffi.*.so zstandard/backend_cffi.py \
 && find . -type d \( -name tests -o -name __pycache__ \) -prune -exec rm -rf {} + \
 && find . -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h' -o -name '*.c' -o -name '*.a' \) -delete
# Bytecode of what a farthing loads, the standard library's too, which the base has none of: the root file system is read-only, so
# each start, each worker and each health check would compile it all again.
COPY deploy/healthcheck.py /opt/farthing/healthcheck.py
ENV PYTHONPYCACHEPREFIX=/opt/farthing/bytecode
RUN cd / && /opt/farthing/bin/python -m compileall -q /opt/farthing/lib/python3*/site-packages/farthing \
 && ORT_DISABLE_TELEMETRY=1 /opt/farthing/bin/python -c "import farthing.proxy.app, farthing.proxy.cli, faiss, onnxruntime, tokenizers, tiktoken, redis.asyncio, http.client" \
 && /opt/farthing/bin/farthing --help > /dev/null

FROM ${BASE}
RUN groupadd --system --gid 10001 farthing \
 && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/farthing --no-create-home --shell /usr/sbin/nologin farthing \
 && install -d -m 0700 -o 10001 -g 10001 /var/lib/farthing /var/lib/farthing/state
COPY --from=environment /opt/farthing /opt/farthing
ENV PATH=/opt/farthing/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPYCACHEPREFIX=/opt/farthing/bytecode \
    FARTHING_STATE_DIR=/var/lib/farthing/state \
    FARTHING_SERVER__HOST=0.0.0.0 \
    FARTHING_SERVER__PORT=8080
USER 10001:10001
WORKDIR /var/lib/farthing
VOLUME /var/lib/farthing/state
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "/opt/farthing/healthcheck.py"]
ENTRYPOINT ["farthing"]
CMD ["serve"]
