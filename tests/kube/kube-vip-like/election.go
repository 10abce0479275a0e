package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// elect returns once this process is no candidate any more and its VIPs are gone.
func elect(ctx context.Context, s settings, host *host) error {
	lock, err := s.lock()
	if err != nil {
		return err
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock:            lock,
		ReleaseOnCancel: true,
		LeaseDuration:   s.leaseDuration,
		RenewDeadline:   s.renewDeadline,
		RetryPeriod:     s.retryPeriod,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { host.carry() },
			// client-go has released the Lease before it calls this, or has tried to.
			OnStoppedLeading: func() { stopped(ctx, s, host) },
			OnNewLeader:      func(identity string) { slog.Info("New leader", "leader", identity) },
		},
	})
	if err != nil {
		return fmt.Errorf("these timers cannot work: %w", err)
	}
	elector.Run(ctx)
	return nil
}

func stopped(ctx context.Context, s settings, host *host) {
	planned := ctx.Err() != nil
	if host.carries() {
		delay := s.releaseDelayAddress
		if planned {
			delay += s.lateRelease
		}
		slog.Info("not the leader any more", "planned", planned, "address stays for", delay)
		time.Sleep(delay)
	}
	host.finish()
	if !planned {
		slog.Error("lost leadership, restarting kube-vip")
	}
}

// lock is the Lease, as the election sees it.
func (s *settings) lock() (resourcelock.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("cannot read kubeconfig: %w", err)
	}
	// As in kube-vip's pkg/k8s/client.go.
	config.QPS, config.Burst, config.Timeout = 100, 250, 10*time.Second
	client, err := coordination.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("cannot make a client: %w", err)
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Name: s.lease, Namespace: s.namespace},
		Client:     client,
		LockConfig: resourcelock.ResourceLockConfig{Identity: s.identity},
	}
	if s.old {
		return oldLock{Interface: lock, seconds: int(s.leaseDuration / time.Second)}, nil
	}
	return lock, nil
}

// oldLock shows every record with the own lease duration. Up to 0.26, client-go waited for that one,
// whatever the holder had written.
type oldLock struct {
	resourcelock.Interface
	seconds int
}

func (l oldLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.Interface.Get(ctx)
	if record != nil {
		record.LeaseDurationSeconds = l.seconds
	}
	return record, raw, err
}

// blank empties the holder of the Lease, whatever its name, by the requests of client-go's release(). If the holder
// renews in between, blank reads again, because a test means the tenure that is live.
func blank(ctx context.Context, s settings) error {
	lock, err := s.lock()
	if err != nil {
		return err
	}
	for {
		old, _, err := lock.Get(ctx)
		if err != nil {
			return fmt.Errorf("cannot read the Lease: %w", err)
		}
		now := metav1.Now()
		err = lock.Update(ctx, resourcelock.LeaderElectionRecord{
			LeaderTransitions:    old.LeaderTransitions,
			LeaseDurationSeconds: 1,
			RenewTime:            now,
			AcquireTime:          now,
		})
		if err == nil {
			slog.Info("the holder is emptied", "was", old.HolderIdentity)
			return nil
		}
		if !errors.IsConflict(err) {
			return fmt.Errorf("cannot write the Lease: %w", err)
		}
	}
}
