#!/usr/bin/python
from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rig.words.plugins.module_utils.voice import tone
from ..module_utils import voice


def main():
    module = AnsibleModule(argument_spec={'word': {'required': True}}, supports_check_mode=True)
    module.exit_json(changed=False, said=tone(module.params['word']), same=voice.tone is tone, name=voice.__name__)


if __name__ == '__main__':
    main()
