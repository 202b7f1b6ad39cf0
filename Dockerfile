# The worker, and every other command, as an image: docker build -t vitalstream .
# Not a medical device.
#
# To pin the base by digest: docker build --build-arg PYTHON_IMAGE=python:3.11-slim@sha256:...
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements-build.txt requirements.txt ./
RUN python3 -m venv /build && /build/bin/pip install --no-cache-dir --require-hashes -r requirements-build.txt
RUN python3 -m venv /opt/vitalstream && /opt/vitalstream/bin/pip install --no-cache-dir --require-hashes -r requirements.txt
COPY . .
RUN /build/bin/uv build --wheel --no-build-isolation --python /build/bin/python --out-dir /dist \
    && /opt/vitalstream/bin/pip install --no-cache-dir --no-deps /dist/*.whl \
    && /opt/vitalstream/bin/python -m compileall -q /opt/vitalstream/lib \
    && /opt/vitalstream/bin/pip uninstall --yes --quiet pip

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="vitalstream" \
      org.opencontainers.image.description="Scores a Kafka topic of patient vitals exactly once. Not a medical device." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/vitalstream /opt/vitalstream
# A new volume mounted here takes over the owner, so that `model demo` can write.
RUN install --directory --owner=10001 --group=10001 /models
ENV PATH=/opt/vitalstream/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
WORKDIR /tmp
# In this form the command is process 1, and SIGTERM reaches it.
ENTRYPOINT ["vitalstream"]
CMD ["--help"]
