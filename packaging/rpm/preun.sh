if [ $1 -eq 0 ] && [ -d /run/systemd/system ]; then
    # Removal, not upgrade.
    systemctl --no-reload disable --now kafka-backup.service || :
fi
