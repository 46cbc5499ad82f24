"""Checks commands of the AWS CLI against botocore's models: the service, the operation, the options, and the
required options.

Each line of standard input is the JSON list of a command's arguments, without `aws`. Prints the faults of each
command, and nothing else.
"""

import json
import sys

import botocore.session
from botocore import xform_name

# Services that have another name in the CLI.
SERVICES = {"s3api": "s3"}
OWN_COMMANDS = {("ecr", "get-login-password")}
GLOBAL_OPTIONS = {"--query", "--output", "--region", "--profile", "--no-cli-pager"}


def problems(session, arguments):
    service, command, *rest = arguments
    if (service, command) in OWN_COMMANDS:
        return
    name = SERVICES.get(service, service)
    if name not in session.get_available_services():
        yield f"there is no service {service}"
        return
    model = session.get_service_model(name)
    operations = {xform_name(operation, "-"): operation for operation in model.operation_names}
    if command not in operations:
        yield f"{service} has no operation {command}"
        return
    shape = model.operation_model(operations[command]).input_shape
    members = shape.members if shape else {}
    options = {"--" + xform_name(member, "-"): member for member in members}
    given = {argument for argument in rest if argument.startswith("--")}
    for option in sorted(given - GLOBAL_OPTIONS - options.keys()):
        if options.get("--" + option.removeprefix("--no-")) is None:
            yield f"{service} {command} has no option {option}"
    for member in shape.required_members if shape else []:
        option = "--" + xform_name(member, "-")
        if option not in given and not is_token(members[member], shape, member):
            yield f"{service} {command} needs {option}"
    for option, value in zip(rest, rest[1:]):
        values = members[options[option]].metadata.get("enum") if option in options else None
        if values and value not in values:
            yield f"{service} {command} {option}: {value} is none of {values}"


def is_token(member, shape, name):
    """True when the CLI makes the value itself, as it does for idempotency tokens."""
    return member.metadata.get("idempotencyToken") or name in shape.metadata.get("idempotencyToken", [])


def main():
    session = botocore.session.get_session()
    for line in sys.stdin:
        arguments = json.loads(line)
        for problem in problems(session, arguments):
            print(" ".join(arguments[:2]) + ": " + problem)


main()
