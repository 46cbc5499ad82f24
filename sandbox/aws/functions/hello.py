"""The function of the walk-throughs: says hello to every caller."""

import json


def lambda_handler(event, context):
    return {
        "statusCode": 200,
        "headers": {"content-type": "application/json"},
        "body": json.dumps("Hello World!"),
    }
