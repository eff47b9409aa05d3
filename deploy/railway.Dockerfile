# Railway builds from a Dockerfile, but `bentoml containerize` makes ours. So this one takes the image
# that `make image` made, from a registry. SENTIMENT_IMAGE is a variable of the Railway service.
ARG SENTIMENT_IMAGE
FROM ${SENTIMENT_IMAGE}
