# syntax=docker/dockerfile:1
FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7 AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
COPY requirements.txt ./
RUN /opt/venv/bin/pip install --require-hashes -r requirements.txt

FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=5000 \
    ENVIRONMENT=production
# /var/lib/clinic keeps the exported heads of the audit chains when the container is replaced.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin clinic \
    && install -d -o clinic -g clinic /var/lib/clinic
COPY --from=packages /opt/venv /opt/venv
WORKDIR /srv/clinic
COPY app.py column_types.py config.py config_keys.py config_messages.py create_admin.py enums.py errors.py \
    extensions.py gc_freeze.py gunicorn.conf.py lazy_imports.py metrics_directory.py models.py server.py \
    worker_process.py ./
COPY api ./api
COPY cache ./cache
COPY commands ./commands
COPY data ./data
COPY database ./database
COPY migrations ./migrations
COPY resources ./resources
COPY schemas ./schemas
COPY security ./security
COPY services ./services
USER clinic
EXPOSE 5000
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/health/live\", timeout=4)"]
CMD ["python", "server.py"]
