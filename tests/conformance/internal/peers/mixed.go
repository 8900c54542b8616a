package peers

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"detcd.io/conformance/internal/ensemble"
	"detcd.io/conformance/internal/pair"
)

// users write to and read from a cluster of both kinds.
type users struct {
	*ensemble.Cluster
	puts int
}

// together runs a cluster with an etcd for each `e` and a detcd for each `d`, lets everyone lead, and loses everyone once. It
// returns how many steps went well.
func together(ctx context.Context, binaries pair.Binaries, kinds, dir string) (steps int, err error) {
	found, err := ensemble.Found(binaries, kinds, dir)
	if err != nil {
		return 0, err
	}
	c := &users{Cluster: found}
	defer c.End()
	for _, member := range c.Members {
		if err := c.Lead(ctx, member); err != nil {
			return steps, fmt.Errorf("%s leads: %w", member.Name, err)
		}
		if err := c.use(ctx); err != nil {
			return steps, fmt.Errorf("while %s leads: %w", member.Name, err)
		}
		steps++
	}
	for i, member := range c.Members {
		if err := c.Lead(ctx, member); err != nil {
			return steps, fmt.Errorf("%s leads again: %w", member.Name, err)
		}
		member.Kill()
		if err := c.write(ctx, (i+1)%len(c.Members), 200); err != nil {
			return steps, fmt.Errorf("without %s: %w", member.Name, err)
		}
		if err := member.Restart(); err != nil {
			return steps, err
		}
		if err := c.Agree(ctx); err != nil {
			return steps, fmt.Errorf("after %s came back: %w", member.Name, err)
		}
		steps++
	}
	return steps, nil
}

func (c *users) write(ctx context.Context, by, count int) error {
	return ensemble.Until(ctx, "write", func(ctx context.Context) error {
		for range count {
			c.puts++
			if _, err := c.Members[by].Client.Put(ctx, fmt.Sprint("key ", c.puts%100), fmt.Sprint("value ", c.puts)); err != nil {
				return fmt.Errorf("by %s: %w", c.Members[by].Name, err)
			}
		}
		return nil
	})
}

// use writes, reads and lends by every member.
func (c *users) use(ctx context.Context) error {
	for i := range c.Members {
		if err := c.write(ctx, i, 100); err != nil {
			return err
		}
		key := fmt.Sprint("read by ", i)
		if _, err := c.Members[(i+1)%len(c.Members)].Client.Put(ctx, key, fmt.Sprint(c.puts)); err != nil {
			return err
		}
		read, err := c.Members[i].Client.Get(ctx, key)
		if err != nil || len(read.Kvs) != 1 || string(read.Kvs[0].Value) != fmt.Sprint(c.puts) {
			return fmt.Errorf("%s reads %v: %w", c.Members[i].Name, read, err)
		}
		lent, err := c.Members[i].Client.Grant(ctx, 100)
		if err != nil {
			return err
		}
		for j := range c.Members {
			renewed, err := c.Members[j].Client.KeepAliveOnce(ctx, lent.ID)
			if err != nil || renewed.TTL != 100 {
				return fmt.Errorf("%s renews what %s lent: %v: %w", c.Members[j].Name, c.Members[i].Name, renewed, err)
			}
			seen, err := c.Members[j].Client.TimeToLive(ctx, lent.ID, clientv3.WithAttachedKeys())
			if err != nil || seen.GrantedTTL != 100 || seen.TTL < 90 {
				return fmt.Errorf("%s looks at what %s lent: %v: %w", c.Members[j].Name, c.Members[i].Name, seen, err)
			}
		}
	}
	return c.Agree(ctx)
}
