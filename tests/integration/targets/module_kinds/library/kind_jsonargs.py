#!/usr/bin/python3
# substituted into the source by core: no wrapper around it
import json
import sys

json_arguments = r"""<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>"""
arguments = json.loads(json_arguments)
print(json.dumps({'changed': False, 'word': arguments.get('word'), 'argv': len(sys.argv), 'kind': 'jsonargs'}))
