import sys
print("python", sys.version_info[0], sys.argv[1:])
