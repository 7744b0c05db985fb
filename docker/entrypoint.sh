#!/bin/sh
# Starts the role of this container; further arguments go to the command as they are.
set -eu
case "$ROLE" in
    bootstrap)
        exec swarmnet bootstrap "$RUN_FILE" --invite-file "$INVITE_FILE" --out /out "$@"
        ;;
    peer)
        if [ -z "${INVITE:-}" ]; then
            waited=0
            until [ -s "$INVITE_FILE" ]; do
                [ "$waited" -lt 120 ] || { echo "no invite in $INVITE_FILE" >&2; exit 2; }
                sleep 1
                waited=$((waited + 1))
            done
            INVITE=$(cat "$INVITE_FILE")
        fi
        exec swarmnet peer "$INVITE" --out /out "$@"
        ;;
    *)
        echo "ROLE=$ROLE is not known; known: bootstrap, peer" >&2
        exit 2
        ;;
esac
