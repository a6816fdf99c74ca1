# The service's image: one for web, worker, beat and the one-shot that prepares the database.
FROM python:3.11-slim AS packages

WORKDIR /app
RUN python -m venv .venv
COPY requirements/run.txt requirements/run.txt
RUN .venv/bin/pip install --no-cache-dir --disable-pip-version-check \
    --require-hashes --only-binary :all: -r requirements/run.txt


FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PATH=/app/.venv/bin:$PATH \
    DATA_DIR=/data \
    HOST=0.0.0.0 \
    DEMO=0

RUN useradd --system --uid 10001 --create-home spendgate \
    && install -d -o spendgate -g spendgate -m 700 /data
WORKDIR /app
COPY --from=packages /app/.venv .venv
COPY manage.py ./
COPY alerts alerts
COPY billing billing
COPY common common
COPY config config
COPY dashboard dashboard
COPY metering metering
COPY templates templates
COPY tenants tenants

USER spendgate
# A new container finds the compressed files of its own version in its volume.
RUN SECRET_KEY=of-the-build-alone-and-no-service-ever DATABASE_URL=postgresql://nobody@nowhere/none \
    python manage.py collectstatic --no-input --verbosity 0
VOLUME /data
EXPOSE 8000
CMD ["python", "-m", "config.parts", "web"]
