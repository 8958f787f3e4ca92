#!/usr/bin/python3
"""The JSON codec against Debian's python3-protobuf: the same messages, the same texts, the same refusals.

Usage: json_oracle.py FILTER PROTOSET [CASES]
"""
import json
import math
import random
import struct
import subprocess
import sys

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory


def load(path):
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(open(path, "rb").read())
    for file in files.file:
        pool.Add(file)
    return message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName("codec_test.All"))


def some_int(rng, bits, signed):
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return rng.choice([low, high, 0, 1, high // 2, rng.randint(low, high), max(low, -1)])


def some_text(rng):
    alphabet = ["a", "Z", '"', "\\", "/", "\n", "\t", "\x01", "\x7f", "é", "€", "\U0001f600", "\u2028", "<", "&", " ", "\ufffd"]
    return "".join(rng.choice(alphabet) for _ in range(rng.choice([0, 1, 3, 17])))


def some_value(rng, field, depth):
    kind = field.cpp_type
    f = type(field)
    if field.message_type:
        return None
    if kind == f.CPPTYPE_INT32:
        return some_int(rng, 32, True)
    if kind == f.CPPTYPE_INT64:
        return some_int(rng, 64, True)
    if kind == f.CPPTYPE_UINT32:
        return some_int(rng, 32, False)
    if kind == f.CPPTYPE_UINT64:
        return some_int(rng, 64, False)
    if kind == f.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == f.CPPTYPE_ENUM:
        return rng.choice([0, 1, 2, -3, 77])
    if kind == f.CPPTYPE_STRING:
        return bytes(rng.randrange(256) for _ in range(rng.choice([0, 1, 2, 3, 4, 50]))) \
            if field.type == f.TYPE_BYTES else some_text(rng)
    # Not -0.0: protobuf-c packs it as 0.
    real = rng.choice([0.0, 1.0, 0.1, -2.5e-7, 1e300, 123456789.125, math.inf, -math.inf, rng.uniform(-1e6, 1e6)])
    if kind == f.CPPTYPE_FLOAT:
        real = struct.unpack("f", struct.pack("f", real if abs(real) < 1e38 or math.isinf(real) else 1.5))[0]
    return real


def fill_time(rng, message):
    if message.DESCRIPTOR.name == "Timestamp":
        message.seconds = rng.choice([0, 1, -1, 1714564800, -62135596800, 253402300799, rng.randint(-10 ** 10, 10 ** 10)])
        message.nanos = rng.choice([0, 500000000, 1000, 1, 999999999])
    else:
        sign = rng.choice([1, -1])
        message.seconds = sign * rng.choice([0, 1, 3600, 315576000000])
        message.nanos = sign * rng.choice([0, 500000000, 1000, 1, 999999999])


def fill(rng, message, depth=0):
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.6:
            continue
        if field.message_type and field.message_type.name == "All" and depth > 2:
            continue
        fill_field(rng, message, field, depth)


def fill_message(rng, message, depth):
    if message.DESCRIPTOR.name in ("Timestamp", "Duration"):
        fill_time(rng, message)
    else:
        message.SetInParent()
        fill(rng, message, depth + 1)


def fill_field(rng, message, field, depth):
    repeated = field.label == field.LABEL_REPEATED
    if repeated and field.message_type and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        for _ in range(rng.randrange(4)):
            name = some_value(rng, key, depth)
            if value.message_type:
                fill_message(rng, getattr(message, field.name)[name], depth)
            else:
                getattr(message, field.name)[name] = some_value(rng, value, depth)
    elif repeated:
        for _ in range(rng.randrange(4)):
            if field.message_type:
                fill_message(rng, getattr(message, field.name).add(), depth)
            else:
                getattr(message, field.name).append(some_value(rng, field, depth))
    elif field.message_type:
        fill_message(rng, getattr(message, field.name), depth)
    else:
        setattr(message, field.name, some_value(rng, field, depth))


# Texts that people and libraries write. Both sides must agree on whether each is a message, and on which.
TEXTS = [
    '{}', '  { } ', '{"anInt32":1}', '{"an_int32":1}', '{"anInt32":"1"}', '{"anInt32":1.0}', '{"anInt32":1e2}', '{"anInt32":"1.0"}',
    '{"anInt32":1.5}', '{"anInt32":"x"}', '{"anInt32":true}', '{"anInt32":2147483648}', '{"anInt32":-2147483648}', '{"anInt32":null}',
    '{"anInt32":[]}', '{"anInt32":{}}', '{"aUint32":-1}', '{"aUint32":4294967295}', '{"aUint32":4294967296}',
    '{"anInt64":"9223372036854775807"}', '{"anInt64":9223372036854775807}', '{"anInt64":"9223372036854775808"}', '{"anInt64":"-9223372036854775808"}',
    '{"aUint64":"18446744073709551615"}', '{"aUint64":"18446744073709551616"}', '{"aUint64":5}',
    '{"aDouble":"NaN"}', '{"aDouble":"Infinity"}', '{"aDouble":"-Infinity"}', '{"aDouble":"1e3"}', '{"aDouble":"x"}', '{"aDouble":3}',
    '{"aFloat":1e39}', '{"aFloat":-1e39}', '{"aFloat":3.4028234e38}',
    '{"aBool":true}', '{"aBool":"true"}', '{"aBool":1}', '{"aColour":"COLOUR_RED"}', '{"aColour":2}', '{"aColour":"NO_SUCH"}', '{"aColour":-3}',
    '{"aColour":77}', '{"aString":""}', '{"aString":5}', '{"aString":"\\ud83d\\ude00\\n"}', '{"aBytes":"aGkK"}', '{"aBytes":"aGk"}', '{"aBytes":"aGk="}',
    '{"aBytes":"_-8="}', '{"aBytes":"/+8="}', '{"aBytes":""}', '{"aBytes":5}', '{"aLeaf":{"name":"x","exitCode":-1}}', '{"aLeaf":null}', '{"aLeaf":[]}',
    '{"aTime":"1970-01-01T00:00:00Z"}', '{"aTime":"2024-02-29T23:59:59.123456789Z"}', '{"aTime":"2023-02-29T00:00:00Z"}', '{"aTime":"2024-05-01T12:00:00+02:00"}',
    '{"aTime":"2024-05-01T12:00:00.5-01:30"}', '{"aTime":"2024-05-01T12:00:00"}', '{"aTime":"2024-05-01"}', '{"aTime":5}', '{"aTime":"2024-13-01T00:00:00Z"}',
    '{"aSpan":"1.5s"}', '{"aSpan":"-0.5s"}', '{"aSpan":"3s"}', '{"aSpan":"3"}', '{"aSpan":"315576000001s"}', '{"aSpan":"1.0000000001s"}',
    '{"int32s":[1,"2",3.0]}', '{"int32s":[null]}', '{"int32s":5}', '{"int32s":null}', '{"strings":["a",""]}', '{"colours":["COLOUR_RED",2]}',
    '{"leaves":[{},{"name":"y"}]}', '{"texts":{"a":"b","":""}}', '{"texts":{"a":null}}', '{"texts":[]}', '{"byName":{"x":{"name":"n"}}}',
    '{"byInt32":{"5":"6","-1":7}}', '{"byInt32":{"x":1}}', '{"byInt32":{"2147483648":1}}', '{"byUint64":{"18446744073709551615":true}}',
    '{"byBool":{"true":"aGk="}}', '{"byBool":{"1":"aGk="}}', '{"bySint64":{"-5":"COLOUR_RED"}}', '{"spans":{"a":"1s"}}',
    '{"chosenInt32":0}', '{"chosenString":""}', '{"chosenInt32":1,"chosenString":"x"}', '{"chosenLeaf":{}}', '{"chosenInt32":null,"chosenString":"x"}',
    '{"maybe":0}', '{"maybe":5}', '{"nested":{"nested":{"anInt32":7}}}', '{"unknown":{"deep":[1,2,{"x":null}]},"anInt32":3}',
    '{"an_int32":1,"anInt32":2}', '{"anInt32":1,"anInt32":2}', '[]', '5', '"x"', 'null', '{', '{"anInt32":1}}', '{"anInt32":01}', "{'anInt32':1}",
    '{"anInt32":1,}', '// x', '', '{"Odd_Name1_x":"a"}', '{"OddName1X":"b"}', '{"Leading":{"a":"b"}}',
]

# Where the oracle is looser or stricter than the proto3 JSON text, and we follow the text. Not compared, but pinned.
OWN = {
    '{"anInt32":"1.0"}': "ok 0801",
    '{"aLeaf":[]}': "error",
    '{"aSpan":"1.0000000001s"}': "error",
    '{"an_int32":1,"anInt32":2}': "error",
    '[]': "error",
    '"x"': "error",
    '{"aBytes":"aGk"}': "ok 8201026869",
    '{"aString":"a\\u0000b"}': "error",  # protobuf-c's strings end at NUL
}


def check(name, ok, why=""):
    if not ok:
        print(f"FAIL {name}: {why}")
        check.failed += 1


check.failed = 0


def oracle(kind, text):
    message = kind()
    try:
        json_format.Parse(text, message, ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, AttributeError, TypeError):
        return None
    return message


def same(kind, ours, wanted):
    got = kind.FromString(bytes.fromhex(ours))
    return got.SerializeToString(deterministic=True) == wanted.SerializeToString(deterministic=True)


def main():
    kind = load(sys.argv[2])
    rng = random.Random(7)
    messages = []
    for _ in range(int(sys.argv[3]) if len(sys.argv) > 3 else 1500):
        message = kind()
        fill(rng, message)
        messages.append(message)
    texts = [t for t in TEXTS if t not in OWN]
    ours_to_json = [f"e {m.SerializeToString().hex()}" for m in messages]
    theirs_to_us = [f"d {json_format.MessageToJson(m, indent=None, preserving_proto_field_name=i % 2)}" for i, m in enumerate(messages)]
    lines = ours_to_json + theirs_to_us + [f"d {t}" for t in texts] + [f"d {t}" for t in OWN]
    out = subprocess.run([sys.argv[1]], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
    check("every case was answered", len(out) == len(lines), f"{len(out)} of {len(lines)}")
    answers = iter(out)
    for message in messages:
        answer = next(answers)
        try:
            equal = answer.startswith("ok ") and json.loads(answer[3:]) == json.loads(json_format.MessageToJson(message))
        except ValueError as e:
            equal = False
        check("encode", equal, f"{answer[:200]} / {json_format.MessageToJson(message, indent=None)[:200]}")
    for message in messages:
        answer = next(answers)
        check("decode", answer.startswith("ok ") and same(kind, answer[3:], message), answer[:200])
    for text in texts:
        answer = next(answers)
        wanted = oracle(kind, text)
        check(f"text {text}", answer.startswith("ok ") == (wanted is not None), f"{answer}; the oracle: {wanted!r}")
        if wanted is not None and answer.startswith("ok "):
            check(f"text {text}", same(kind, answer[3:], wanted), f"{answer}; the oracle: {wanted!r}")
    for text, wanted in OWN.items():
        answer = next(answers)
        check(f"text {text}", answer.startswith(wanted), answer)
    print(f"{len(lines)} cases, {check.failed} failures")
    return 1 if check.failed else 0


sys.exit(main())
