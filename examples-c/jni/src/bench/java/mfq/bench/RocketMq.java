package mfq.bench;

import java.nio.file.Path;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.common.BrokerConfig;
import org.apache.rocketmq.common.BrokerIdentity;
import org.apache.rocketmq.store.AllocateMappedFileService;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.MappedFileQueue;
import org.apache.rocketmq.store.TransientStorePool;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.store.logfile.MappedFile;
import org.apache.rocketmq.store.util.PerfCounter;
import sun.reflect.ReflectionFactory;

/** RocketMQ's own file queue with its allocation service, in mmap mode, and nothing of the broker around it. */
final class RocketMq implements Log {
    private final byte[] record;
    private final AllocateMappedFileService allocation;
    private final MappedFileQueue queue;
    private MappedFile last;

    RocketMq(Path directory, byte[] record, boolean isWarmed) throws Exception {
        this.record = record;
        Store store = (Store) ReflectionFactory.getReflectionFactory()
                .newConstructorForSerialization(Store.class, Object.class.getDeclaredConstructor()).newInstance();
        store.config = new MessageStoreConfig();
        store.config.setMappedFileSizeCommitLog(FILE_BYTES); // smaller files are never warmed
        store.config.setWarmMapedFileEnable(isWarmed);
        store.broker = new BrokerConfig();
        store.ticks = new PerfCounter.Ticks();
        allocation = new AllocateMappedFileService(store);
        allocation.start();
        queue = new MappedFileQueue(directory.toString(), FILE_BYTES, allocation);
        last = queue.getLastMappedFile(0);
    }

    @Override
    public long append() {
        if (last.isFull()) {
            last = queue.getLastMappedFile(0);
        }
        if (!last.appendMessage(record)) {
            last = queue.tryCreateMappedFile(last.getFileFromOffset() + FILE_BYTES);
            if (!last.appendMessage(record)) {
                throw new IllegalStateException("a new file takes no record");
            }
        }
        return last.getWrotePosition();
    }

    @Override
    public void close() {
        allocation.shutdown();
        queue.shutdown(0);
    }

    /** Made without its constructor: what the allocation service asks of it is here. */
    private static final class Store extends DefaultMessageStore {
        MessageStoreConfig config;
        BrokerConfig broker;
        PerfCounter.Ticks ticks;

        /** Never called. */
        Store() throws Exception {
            super(null, null, null, null, new ConcurrentHashMap<>());
        }

        @Override
        public MessageStoreConfig getMessageStoreConfig() {
            return config;
        }

        @Override
        public BrokerConfig getBrokerConfig() {
            return broker;
        }

        @Override
        public BrokerIdentity getBrokerIdentity() {
            return broker;
        }

        @Override
        public PerfCounter.Ticks getPerfCounter() {
            return ticks;
        }

        @Override
        public TransientStorePool getTransientStorePool() {
            return null;
        }

        @Override
        public boolean isTransientStorePoolEnable() {
            return false;
        }

        @Override
        public int remainTransientStoreBufferNumbs() {
            return Integer.MAX_VALUE;
        }
    }
}
