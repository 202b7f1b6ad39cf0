# The worker, and every other command, as an image: docker build -t vitalstream .
# Not a medical device.
#
# To pin the base by digest: docker build --build-arg PYTHON_IMAGE=python:3.11-slim@sha256:...
ARG PYTHON_IMAGE=python:3.11-slim
ARG RUST_IMAGE=rust:1.85-slim-bookworm

# The native kernel: one wheel for every Python from 3.11 onwards.
FROM ${RUST_IMAGE} AS kernel
WORKDIR /src
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv && python3 -m venv /build
COPY requirements-dev.txt ./
RUN sed -n '/^maturin==/,/# via/p' requirements-dev.txt >maturin.txt \
    && /build/bin/pip install --no-cache-dir --require-hashes -r maturin.txt
COPY native ./
RUN /build/bin/maturin build --release --locked --out /dist

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# The dependencies have their own layer, so a new version of the project adds only a small one.
# Their tests and C++ headers are removed: nothing here needs them.
COPY requirements-image.txt ./
RUN python3 -m venv --without-pip /opt/vitalstream \
    && pip --python /opt/vitalstream/bin/python install --no-compile --require-hashes -r requirements-image.txt \
    && find /opt/vitalstream/lib -depth -type d \( -name tests -o -path '*/pyarrow/include' \) -exec rm -rf {} + \
    && /opt/vitalstream/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/vitalstream/lib
COPY requirements-build.txt ./
RUN python3 -m venv /build && /build/bin/pip install --require-hashes -r requirements-build.txt
COPY . .
COPY --from=kernel /dist /dist
RUN /build/bin/uv build --wheel --no-build-isolation --python /build/bin/python --out-dir /dist \
    && pip --python /opt/vitalstream/bin/python install --no-compile --no-deps --root /project /dist/*.whl \
    && /opt/vitalstream/bin/python -m compileall -q --invalidation-mode unchecked-hash -s /project /project

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="vitalstream" \
      org.opencontainers.image.description="Scores a Kafka topic of patient vitals exactly once. Not a medical device." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/vitalstream /opt/vitalstream
COPY --from=build /project /
# A new volume mounted here inherits the owner, so `model demo` and compose.yaml's `certificate` can write to it.
RUN install --directory --owner=10001 --group=10001 /models /tls/broker /tls/public
ENV PATH=/opt/vitalstream/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, which tells an orchestrator that the user is not root.
USER 10001:10001
WORKDIR /tmp
# In exec form the command is process 1, so SIGTERM reaches it.

ENTRYPOINT ["vitalstream"]
CMD ["--help"]
