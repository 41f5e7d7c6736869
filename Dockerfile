# syntax=docker/dockerfile:1
# NOT RUN ON A CONTAINER ENGINE YET. Its steps were done by hand in a folder of their own (build of the wheel, installation
# with hashes, `crmbridge --help`); tests/unit/test_compose_file.py checks what can be checked without an engine.
# The build needs a package index, as pip is set up where it runs.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
COPY tools/runtime_requirements.py tools/
# Everything that constraints.txt names is pinned and hashed; the image below gets what the wheel needs and no test tools.
RUN python -m venv /build \
    && /build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r constraints.txt \
    && /build/bin/python -m build --wheel --no-isolation --outdir /dist \
    && /build/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps /dist/*.whl \
    && /build/bin/python tools/runtime_requirements.py constraints.txt > /dist/runtime.txt \
    && python -m venv /opt/crmbridge \
    && /opt/crmbridge/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes \
        -r /dist/runtime.txt \
    && /opt/crmbridge/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps /dist/*.whl \
    && /opt/crmbridge/bin/pip check

FROM python:3.11-slim-bookworm
# The folders are made here so that new volumes belong to the user who writes into them.
RUN useradd --system --uid 10001 --home-dir /var/lib/crmbridge --shell /usr/sbin/nologin crmbridge \
    && install -d -o crmbridge -g crmbridge -m 0700 /var/lib/crmbridge /keys /owner
COPY --from=build /opt/crmbridge /opt/crmbridge
ENV PATH=/opt/crmbridge/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 CRMBRIDGE_DATA_DIR=/var/lib/crmbridge \
    CRMBRIDGE_LOG_FORMAT=json
USER crmbridge
EXPOSE 8700 8701
STOPSIGNAL SIGTERM
CMD ["crmbridge", "serve"]
