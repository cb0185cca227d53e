#!powershell

#AnsibleRequires -CSharpUtil Ansible.Basic

$module = [Ansible.Basic.AnsibleModule]::Create($args, @{ options = @{ a = @{ type = "str" } } })
$module.Result.a = $module.Params.a
$module.ExitJson()
