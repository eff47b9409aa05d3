"""Make the bucket `log` in S3; AWS_ENDPOINT_URL says where."""

import boto3

boto3.client("s3").create_bucket(Bucket="log")
