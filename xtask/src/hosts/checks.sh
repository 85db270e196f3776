# What a guest checks: mounts control groups of one layout, makes the places in them that processes are in on real hosts, and runs the
# sandbox in each. A line `result CHECK CODE` tells of each check, and `finished` that all were made.
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LANG=C.UTF-8
. /run/settings
groups=/sys/fs/cgroup

unified() {
    mkdir -p "$1"
    mount -t cgroup2 -o nsdelegate cgroup2 "$1"
    trees="$trees $1"
}
legacy() {
    mount -t tmpfs -o mode=755 tmpfs $groups
    for controllers in cpu,cpuacct memory pids; do
        mkdir $groups/$controllers
        # Kernels leave out the memory controller of version 1, as Debian's do from 6.12 on.
        mount -t cgroup -o $controllers cgroup $groups/$controllers && trees="$trees $groups/$controllers"
    done
    mkdir $groups/systemd
    mount -t cgroup -o none,name=systemd cgroup $groups/systemd
    trees="$trees $groups/systemd"
}
case $layout in
v1) legacy ;;
v2) unified $groups ;;
hybrid) legacy && unified $groups/unified ;;
esac

# Asks for the controllers below a group, which hierarchies of version 1 have everywhere.
delegate() {
    for controller in pids memory; do
        if grep -qw $controller "$1/cgroup.controllers" 2> /dev/null; then echo +$controller > "$1/cgroup.subtree_control"; fi
    done
}
for tree in $trees; do
    mkdir -p $tree/system.slice/checks.service $tree/system.slice/contained $tree/user.slice/owned/leaf $tree/user.slice/plain
    for group in $tree $tree/system.slice $tree/user.slice $tree/user.slice/owned; do delegate $group; done
    for group in $tree/user.slice/owned $tree/user.slice/owned/leaf; do
        chown 1000:1000 $group $group/cgroup.procs
        if [ -e $group/cgroup.subtree_control ]; then chown 1000:1000 $group/cgroup.subtree_control; fi
    done
done

# Runs a command in a place of the tree: `at PLACE COMMAND...`.
at() {
    case $1 in
    root) group=. as= ;;
    service) group=system.slice/checks.service as= ;;
    owner) group=user.slice/owned/leaf as="setpriv --reuid 1000 --regid 1000 --clear-groups" ;;
    user) group=user.slice/plain as="setpriv --reuid 1000 --regid 1000 --clear-groups" ;;
    contained) group=system.slice/contained as= ;;
    esac
    shift
    (
        read -r self rest < /proc/self/stat
        for tree in $trees; do echo "$self" > $tree/$group/cgroup.procs; done
        exec $as "$@"
    )
}

# Whether `bellwether doctor` finds what there is: `finds PLACE GROUPS`.
finds() {
    at "$1" "$program" doctor > /run/found
    grep "detonation \|control groups " /run/found
    grep -q "control groups .*$2" /run/found && ! grep -q "detonation *missing" /run/found
    echo "result $layout $1 doctor $?"
}

# What a container sees of version 2 is its own group, which has processes: a file runs there in a group without bounds, and doing
# what `bellwether doctor` advises brings them.
contained() {
    at contained unshare --cgroup --mount sh -c "
        umount $groups && mount -t cgroup2 cgroup2 $groups &&
        $program doctor > /run/found && grep 'detonation \|control groups ' /run/found &&
        grep -q 'detonation  *a program was caged' /run/found &&
        grep -q 'version 2: cgroup.kill, listing; lacking: tasks, memory; move the processes of $groups ' /run/found &&
        $program detonate /bin/true --model models/quickstart --out /tmp/contained &&
        mkdir $groups/below && echo \$\$ > $groups/below/cgroup.procs && echo +pids +memory > $groups/cgroup.subtree_control &&
        $program doctor | grep 'control groups  version 2: tasks, memory'"
    echo "result $layout contained doctor $?"
}

detonates() {
    at "$1" "$program" detonate /bin/true --model models/quickstart --out "/tmp/$1"
    echo "result $layout $1 detonate $?"
}

echo "kernel $(uname -r)"
cat /proc/self/cgroup
cd "$source" || echo "there is no $source"
case $layout in
v1) kind="version 1: tasks" ;;
v2) kind="version 2: tasks" ;;
hybrid) kind="hybrid: tasks" ;;
esac
case "$layout $trees" in
"v1 "*memory* | v2* | hybrid*) kind="$kind, memory" ;;
esac
for place in root service owner; do finds $place "$kind"; done
finds user "none can be made"
if [ "$layout" = v2 ]; then contained; fi
for place in root service owner user; do detonates $place; done
echo finished
