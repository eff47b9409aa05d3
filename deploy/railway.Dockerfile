# Railway builds from a Dockerfile, and ours is made by `bentoml containerize`: this one takes what
# `make image` has made and a registry has. SENTIMENT_IMAGE is a variable of the service.
ARG SENTIMENT_IMAGE
FROM ${SENTIMENT_IMAGE}
