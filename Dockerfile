# Built and run on 2026-11-25 with Docker Engine 26.1.5 (BuildKit), on a base image that was made by hand from Debian's
# packages under the name used here: no registry was in reach, so the official one is untried.
# The build needs a package index. For one of your own, give your pip.conf as a secret; it is in no layer:
#   docker build --secret id=pip,src=$HOME/.config/pip/pip.conf --tag crmbridge:local .
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY constraints.txt ./
# Everything that constraints.txt names is pinned and hashed. A step of its own: a change of the code does not repeat it.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv /build \
    && /build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY tools/runtime_requirements.py tools/
# What the wheel needs, and no test tools nor pip.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /build/bin/python -m build --wheel --no-isolation --outdir /dist \
    && /build/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps /dist/*.whl \
    && /build/bin/python tools/runtime_requirements.py constraints.txt > /dist/runtime.txt \
    && python -m venv --without-pip /opt/crmbridge \
    && /build/bin/pip --python /opt/crmbridge/bin/python install --no-cache-dir --disable-pip-version-check \
        --require-hashes -r /dist/runtime.txt \
    && /build/bin/pip --python /opt/crmbridge/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-deps /dist/*.whl \
    && /build/bin/pip --python /opt/crmbridge/bin/python check

FROM python:3.11-slim-bookworm
# The folders are made here so that new volumes belong to the user who writes into them.
RUN groupadd --system --gid 10001 crmbridge \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/crmbridge --shell /usr/sbin/nologin crmbridge \
    && install -d -o crmbridge -g crmbridge -m 0700 /var/lib/crmbridge /keys /owner
COPY --from=build /opt/crmbridge /opt/crmbridge
ENV PATH=/opt/crmbridge/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 CRMBRIDGE_DATA_DIR=/var/lib/crmbridge \
    CRMBRIDGE_LOG_FORMAT=json
# By number: Kubernetes takes no name for runAsNonRoot.
USER 10001:10001
EXPOSE 8700 8701
STOPSIGNAL SIGTERM
CMD ["crmbridge", "serve"]
