# A package in the form of a zip archive is unpacked, compiled and tried, as pip does without a network.
mkdir -p work/build/tool .local/lib/python
cat Projects/*/scripts/*.py > /dev/null
n=0
for f in Projects/*/scripts/*.py; do n=$((n + 1)); cp "$f" "work/build/tool/part$n.py"; done
echo 'print("tool")' > work/build/tool/__main__.py
(cd work/build && zip -q -r ../tool.whl tool)
unzip -q work/tool.whl -d .local/lib/python
python3 -I -S -m compileall -q .local/lib/python
printf '#!/bin/sh\nexec python3 -I -S %s/.local/lib/python/tool\n' "$HOME" > .local/bin/tool
chmod +x .local/bin/tool
.local/bin/tool
