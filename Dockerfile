#checkov:skip=CKV_DOCKER_2:Kubernetes asks for the pod's health itself, and heeds no HEALTHCHECK
#checkov:skip=CKV_DOCKER_7:the base is an argument, whose default has a tag
# All stages have the same base: a virtual environment points at that base's Python.
ARG BASE=python:3.12-slim

FROM ${BASE} AS build

# There is no pip in this environment: the service does not need one, and neither does an intruder.
RUN python -m venv --without-pip /opt/venv
COPY requirements/service.txt /tmp/service.txt
# Only wheels, because a slim base has no compiler. A pip configuration of the builder's (such as a mirror, which
# may need a password) can be lent as the secret "pip"; it stays out of the image.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --disable-pip-version-check \
      --only-binary :all: --require-hashes --no-deps -r /tmp/service.txt
# The service takes two files from here. The rest is an editor and source maps, 20 MB; the licence stays with the files.
RUN find /opt/venv/lib/python3*/site-packages/swagger_ui/static -type f \
      ! -name swagger-ui-bundle.js ! -name swagger-ui.css ! -name LICENSE -delete

COPY svc /app/svc
COPY sql /app/sql
# Compiled here, because the service may not write there. By hash rather than by time, which copying can change.
# The modes must not depend on those of the checkout.
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib /app \
    && chmod -R a+rX,go-w /opt/venv /app

# What sends load, for k8s/load: built with --target load, and no part of the service's image, which is the last stage.
FROM ${BASE} AS build-load

RUN python -m venv --without-pip /opt/venv
COPY requirements/load.txt /tmp/load.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --disable-pip-version-check \
      --only-binary :all: --require-hashes --no-deps -r /tmp/load.txt

COPY ops/__init__.py /app/ops/
COPY ops/common /app/ops/common
COPY ops/load /app/ops/load
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib /app \
    && chmod -R a+rX,go-w /opt/venv /app

FROM ${BASE} AS load

COPY --from=build-load /opt/venv /opt/venv
COPY --from=build-load /app /app
WORKDIR /app
USER 10001:10001

# What is written is in one folder, for which the orchestrator has a place: results, and Matplotlib's list of fonts.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/app/.local/matplotlib
ENTRYPOINT ["python", "-m", "ops.load"]
CMD ["--help"]

ARG BUILD=""
LABEL org.opencontainers.image.title="clients-api-load" \
      org.opencontainers.image.description="Load tests of the clients API of olimac.link." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="${BUILD}"

FROM ${BASE}

COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
WORKDIR /app
# A number, so that an orchestrator can tell that it is not root. All files are root's: the service only reads them.
USER 10001:10001

# Nothing is written: the root file system can be read-only. Output is not held back, so that no log line is lost.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8080
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "svc"]
CMD ["serve"]

# Last, because it changes with every commit. /version shows it.
ARG BUILD=""
ENV BUILD=${BUILD}
LABEL org.opencontainers.image.title="clients-api" \
      org.opencontainers.image.description="The clients API of olimac.link: list, add and look up clients." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="${BUILD}"
