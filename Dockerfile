# One image for api, worker and upkeep. The base build trains on the CPU; a GPU host needs only a torch
# build with CUDA, which pip takes by itself where no CPU index is configured.
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PLAIT_DATA=/data
WORKDIR /app

COPY pyproject.toml constraints.txt README.md ./
COPY settings.py telemetry.py lifeline.py manage.py ./
COPY api api
COPY bus bus
COPY db db
COPY domain domain
COPY egress egress
COPY engine engine
COPY kernels kernels
COPY ops ops
COPY worker worker
RUN pip install --no-cache-dir -c constraints.txt -e . \
    && useradd --system --create-home plait && mkdir /data && chown plait /data

USER plait
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["plait-server"]
CMD ["up", "--host", "0.0.0.0"]
